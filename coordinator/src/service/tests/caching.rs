//! Prompts that were read before: who reads what of them again, what is said of it, and that nothing else shows.

use chorus_proto::v1::{BeamOptions, FusionOptions, RankCandidate, RankRequest};

use super::*;
use crate::fusion::Rule;

const CACHE: &str = "[prefix_cache]\nmin_tokens = 4\n";
const PROMPT: [u32; 9] = [1, 7, 0, 3, 3, 2, 5, 6, 4];

fn plain(max_tokens: u32) -> GenerateRequest {
    GenerateRequest { log_probs: false, sampling: None, ..request(&PROMPT, max_tokens, 0) }
}

/// What each member has read so far.
fn read_by(stage: &Stage) -> [usize; 3] {
    stage.members.each_ref().map(|member| member.feeds().iter().sum())
}

/// What each member reads for a request, and how much of its prompt was cached.
async fn read_for(stage: &Stage, request: GenerateRequest) -> ([usize; 3], u32, CompleteReply) {
    let before = read_by(stage);
    let reply = stage.complete(request).await.unwrap();
    let after = read_by(stage);
    let cached = reply.end.as_ref().unwrap().cached_prompt_tokens;
    (std::array::from_fn(|member| after[member] - before[member]), cached, reply)
}

#[tokio::test]
async fn a_prompt_that_comes_again_is_not_read_again_under_any_rule() {
    for rule in Rule::ALL {
        let stage = Stage::new(&format!("{CACHE}[fusion]\nrule = '{rule}'")).await;
        let asked = if rule.yields_distribution() { request(&PROMPT, 3, 7) } else { plain(3) };
        let (read, cached, first) = read_for(&stage, asked.clone()).await;
        assert_eq!((read, cached), ([9 + 2; 3], 0), "{rule}");
        let (read, cached, second) = read_for(&stage, asked).await;
        assert_eq!((read, cached), ([2; 3], 9), "{rule}");
        assert_eq!(first.tokens, second.tokens, "{rule}");
    }
}

#[tokio::test]
async fn every_plan_goes_on_from_what_is_kept() {
    let vocabulary = large_vocabulary();
    let drawn = GenerateRequest { log_probs: false, ..request(&PROMPT, 4, 7) };
    let greedy = SamplingOptions { temperature: Some(0.0), ..SamplingOptions::default() };
    let greedy = GenerateRequest { sampling: Some(greedy), ..plain(4) };
    let vote = "[fusion]\nrule = 'threshold_vote'\n";
    for (toml, asked) in [("", drawn), (vote, plain(4)), ("", greedy), ("", request(&PROMPT, 4, 7))] {
        let stage = Stage::with(Style::Noise, &vocabulary, &format!("{CACHE}{toml}")).await;
        let (_, _, first) = read_for(&stage, asked.clone()).await;
        let (read, cached, second) = read_for(&stage, asked).await;
        assert_eq!((read, cached), ([3; 3], 9));
        assert_eq!(first.tokens, second.tokens);
    }
}

#[tokio::test]
async fn a_third_prompt_goes_on_from_where_two_parted() {
    let stage = Stage::new(CACHE).await;
    let with = |end: &[u32]| [&PROMPT[..6], end].concat();
    assert_eq!(read_for(&stage, request(&with(&[0, 0, 0]), 1, 7)).await.0, [9; 3]);
    let (read, cached, _) = read_for(&stage, request(&with(&[1, 1, 1]), 1, 7)).await;
    assert_eq!((read, cached), ([9; 3], 0), "it is read, with a stop where they part");
    let (read, cached, reply) = read_for(&stage, request(&with(&[2, 2, 2]), 1, 7)).await;
    assert_eq!((read, cached), ([3; 3], 6));
    let fresh = Stage::new(CACHE).await;
    assert_eq!(read_for(&fresh, request(&with(&[2, 2, 2]), 1, 7)).await.2.tokens, reply.tokens);
}

#[tokio::test]
async fn a_conversation_goes_on_from_its_last_snapshot() {
    let stage = Stage::new(&format!("{CACHE}[resilience]\nsnapshot_tokens = 4\n")).await;
    let (_, _, reply) = read_for(&stage, request(&PROMPT, 10, 7)).await;
    let answer: Vec<u32> = reply.tokens.iter().map(|token| token.id).collect();
    // 9 tokens of answer were read; the last snapshot is after 8.
    let next = [&PROMPT, answer.as_slice(), &[5, 5]].concat();
    let (read, cached, _) = read_for(&stage, request(&next, 1, 7)).await;
    assert_eq!((read, cached), ([2 + 2; 3], 9 + 8));
}

#[tokio::test]
async fn a_search_a_prediction_and_a_ranking_share_what_is_kept() {
    let stage = Stage::new(CACHE).await;
    let beam = Some(BeamOptions { size: 3, ..BeamOptions::default() });
    let (_, cached, first) = read_for(&stage, GenerateRequest { beam, ..plain(3) }).await;
    assert_eq!(cached, 0);
    let (_, cached, second) = read_for(&stage, GenerateRequest { beam, ..plain(3) }).await;
    assert_eq!((cached, &first.tokens), (9, &second.tokens));
    let before = read_by(&stage);
    let prediction = PredictRequest { prefix: ids(&PROMPT), ..PredictRequest::default() };
    let predicted = stage.predict(prediction.clone()).await.unwrap();
    assert_eq!((predicted.cached_tokens, read_by(&stage)), (9, before));
    let candidate = |tokens: &[u32]| RankCandidate { continuation: ids(tokens), score: None };
    let ranking = RankRequest {
        context: ids(&PROMPT),
        candidates: vec![candidate(&[1, 2]), candidate(&[1, 3])],
        ..RankRequest::default()
    };
    let ranked = stage.service.rank(Request::new(ranking.clone())).await.unwrap().into_inner();
    assert_eq!((ranked.cached_tokens, ranked.computed_tokens, ranked.total_tokens), (9, 3, 22));
    assert_eq!(read_by(&stage), before.map(|read| read + 3));
    let fresh = Stage::new("[prefix_cache]\nmax_bytes = 0\n").await;
    let again = fresh.predict(prediction).await.unwrap();
    assert_eq!((&again.candidates, again.cached_tokens), (&predicted.candidates, 0));
    let again = fresh.service.rank(Request::new(ranking)).await.unwrap().into_inner();
    assert_eq!((&again.candidates, again.cached_tokens), (&ranked.candidates, 0));
}

#[tokio::test]
async fn a_prefix_that_grows_is_read_token_by_token() {
    let stage = Stage::new(CACHE).await;
    for length in 4..=9 {
        let prediction = PredictRequest { prefix: ids(&PROMPT[..length]), ..PredictRequest::default() };
        let cached = stage.predict(prediction).await.unwrap().cached_tokens as usize;
        assert_eq!(cached, if length == 4 { 0 } else { length - 1 });
    }
    assert_eq!(read_by(&stage), [9; 3]);
}

#[tokio::test]
async fn a_member_that_was_away_reads_all_and_only_it() {
    let stage = Stage::new(&format!("{CACHE}[quorum]\nmembers = 2\n")).await;
    stage.members[1].die();
    read_for(&stage, request(&PROMPT, 1, 7)).await;
    stage.members[1].start();
    let (read, cached, reply) = read_for(&stage, request(&PROMPT, 1, 7)).await;
    assert_eq!((read, cached), ([0, 9, 0], 0), "one of them had to read it");
    assert!(reply.participation.unwrap().missing.is_empty());
    let (read, cached, _) = read_for(&stage, request(&PROMPT, 1, 7)).await;
    assert_eq!((read, cached), ([0; 3], 9));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_back_in_the_middle_has_read_what_the_others_have() {
    let stage = Stage::new(&format!("{CACHE}[quorum]\nmembers = 2\n")).await;
    read_for(&stage, request(&PROMPT, 1, 7)).await;
    stage.members[1].die();
    // Of its prompt there is a state, too. It comes back with the fourth token.
    let back = Arc::clone(&stage.members[1]);
    stage.members[0].follow(move |read| {
        if read == PROMPT.len() + 3 {
            back.start();
        }
        Act::AnswerAfter(std::time::Duration::from_millis(100))
    });
    let replies = stage.generate(request(&PROMPT, 12, 7)).await.unwrap();
    stage.assert_fused_in_process(&PROMPT, &replies);
    let missing = missing(&replies);
    assert_eq!((missing[0].as_slice(), missing[11].as_slice()), (&["bass"][..], &[][..]), "{missing:?}");
}

#[tokio::test]
async fn some_of_the_members_go_on_from_what_all_have_read() {
    let stage = Stage::new(CACHE).await;
    read_for(&stage, request(&PROMPT, 1, 7)).await;
    let members = vec!["alto".to_owned(), "cello".to_owned()];
    let fusion = Some(FusionOptions { members, ..FusionOptions::default() });
    let (read, cached, _) = read_for(&stage, GenerateRequest { fusion, ..request(&PROMPT, 1, 7) }).await;
    assert_eq!((read, cached), ([0; 3], 9));
}

#[tokio::test]
async fn weights_that_follow_the_text_have_every_token_of_it_asked_about() {
    let stage = Stage::new(CACHE).await;
    let fusion = Some(FusionOptions { adaptive: true, ..FusionOptions::default() });
    for _ in 0..2 {
        let asked = GenerateRequest { fusion: fusion.clone(), ..request(&PROMPT, 1, 7) };
        let (read, cached, _) = read_for(&stage, asked).await;
        assert_eq!((read, cached), ([9; 3], 0));
    }
    let (read, cached, _) = read_for(&stage, request(&PROMPT, 1, 7)).await;
    assert_eq!((read, cached), ([0; 3], 9), "others go on from what was read so");
}

#[tokio::test]
async fn hits_are_in_the_status_and_a_cache_without_bytes_has_none() {
    let stage = Stage::new(CACHE).await;
    for _ in 0..3 {
        read_for(&stage, request(&PROMPT, 1, 7)).await;
        read_for(&stage, request(&PROMPT[..3], 1, 7)).await;
    }
    let status = stage.status().await.prefix_cache.unwrap();
    assert_eq!((status.entries, status.cached_tokens, status.read_tokens), (1, 18, 9));
    assert!(status.bytes > 0 && status.max_bytes == 64 << 20);
    let stage = Stage::new("[prefix_cache]\nmax_bytes = 0\nmin_tokens = 4\n").await;
    for _ in 0..2 {
        assert_eq!(read_for(&stage, request(&PROMPT, 1, 7)).await.1, 0);
    }
    let status = stage.status().await.prefix_cache.unwrap();
    assert_eq!((status.entries, status.cached_tokens, status.max_bytes), (0, 0, 0));
}
