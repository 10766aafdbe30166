//! Learned weights and a fallback come and go while a coordinator runs.

use chorus_proto::v1::{MissingMember, ScoreRequest};

use super::*;

fn learned(model: &str, weights: [f64; 2]) -> Option<String> {
    Some(format!(
        "format = 1\nvocabulary = {:?}\nmembers = [{{name = 'alto', model = {model:?}}}, {{name = 'bass', model = 'scripted'}}]\n\
         [rules.weighted_average]\nmethod = 'em'\ntokens = 7\nsets = [\n\
         {{members = ['alto', 'bass'], weights = {weights:?}, perplexity = 4.0}},\n\
         {{members = ['bass'], weights = [1.0], perplexity = 6.0}}]",
        vocabulary().fingerprint()
    ))
}

impl Stage {
    async fn weights(&mut self) -> Vec<f64> {
        let request = ScoreRequest { input: Some(text("ab")), ..ScoreRequest::default() };
        let reply = self.client.score(request).await.unwrap().into_inner();
        reply.members.iter().map(|member| member.weight).collect()
    }
}

fn text(text: &str) -> Input {
    Input { input: Some(input::Input::Text(text.to_owned())) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learned_weights_take_effect_are_refused_of_another_ensemble_and_give_way_to_an_operator() {
    let (alto, bass) = (worker(1), worker(2));
    let two = [member("alto", 1.0, &alto), member("bass", 1.0, &bass)];
    let mut stage = stage("", &two).await;
    let running = stage.begin().await;
    let before = told(&rest(stage.begin().await).await);
    *stage.learned.lock().unwrap() = learned("scripted", [0.75, 0.25]);
    let reply = stage.admin.reload(ReloadRequest::default()).await.unwrap().into_inner();
    assert_eq!(reply.revision, 2);
    assert_eq!(stage.weights().await, [0.75, 0.25]);
    assert!(told(&rest(running).await) == before, "what runs keeps its weights");
    assert!(told(&rest(stage.begin().await).await).1 != before.1);

    *stage.learned.lock().unwrap() = learned("another", [0.5, 0.5]);
    let refusal = stage.admin.reload(ReloadRequest::default()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    let sentence = "weights: the learned weights are of another ensemble: they were learned when member \"alto\" was the \
                    model \"another\", but it hosts scripted";
    assert!(refusal.message().contains(sentence), "{refusal}");
    assert_eq!(stage.weights().await, [0.75, 0.25], "what was in force still is");

    *stage.learned.lock().unwrap() = learned("scripted", [0.5, 0.5]);
    stage.admin.reload(ReloadRequest::default()).await.unwrap();
    assert_eq!(stage.weights().await, [0.5, 0.5], "the same file with other numbers");
    stage.set(list(&[member("alto", 4.0, &alto), member("bass", 1.0, &bass)])).await.unwrap();
    assert_eq!(stage.weights().await, [0.8, 0.2], "by hand");
    assert_eq!(stage.status().await.learned, None);
    stage.admin.reload(ReloadRequest::default()).await.unwrap();
    assert_eq!(stage.weights().await, [0.5, 0.5]);
    stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback_is_taken_in_answers_and_is_dismissed() {
    let (mut alto, student) = (worker(1), worker(2));
    let one = [member("alto", 1.0, &alto)];
    let mut stage = stage("", &one).await;
    let fallback = |address: &str| format!("[fallback]\nname = 'student'\naddress = {address:?}");
    *stage.file.lock().unwrap() = toml(&fallback("http://127.0.0.1:9"), &one);
    let refusal = stage.admin.reload(ReloadRequest::default()).await.unwrap_err();
    assert!(refusal.message().contains("member \"student\" is not up"), "{refusal}");
    *stage.file.lock().unwrap() = toml(&fallback(&student.url()), &one);
    stage.admin.reload(ReloadRequest::default()).await.unwrap();
    let status = stage.status().await;
    assert_eq!(status.fallback.unwrap().health(), Health::Up);
    alto.kill();
    while stage.status().await.members[0].health() == Health::Up {
        tokio::task::yield_now().await;
    }
    assert!(stage.status().await.serving);
    let request = ScoreRequest { input: Some(text("ab")), ..ScoreRequest::default() };
    let reply = stage.client.score(request.clone()).await.unwrap().into_inner();
    let participation = reply.participation.unwrap();
    assert_eq!(participation.fallback.unwrap().name, "student");
    let names =
        |missing: &[MissingMember]| missing.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&participation.missing), ["alto"]);
    *stage.file.lock().unwrap() = toml("", &one);
    stage.admin.reload(ReloadRequest { allow_down: true }).await.unwrap();
    let error = stage.client.score(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(!stage.status().await.serving);
    stage.coordinator.stop().await;
}
