//! Hostile model cards: their words are bounded, and a worker is present only with the vocabulary that its card speaks of.

use std::sync::Arc;

use chorus_fuzz::{Encoded, Verdict, any_count, any_number, assert_one_line, fuzz, mutated, within};
use chorus_proto::v1::{ModelCard, Start, WorkerLimits, start};
use chorus_text::Vocabulary;
use futures::FutureExt as _;
use proptest::prelude::*;
use prost::Message as _;

use super::LONGEST_SENTENCE;
use crate::agreement::Agreement;
use crate::link::connect::bounded;

/// What is left of a word, in characters.
const LONGEST_WORD: usize = 210;

fn card(fingerprint: String) -> impl Strategy<Value = Vec<u8>> + Clone {
    let word = || prop_oneof![8 => "[a-z0-9:]{1,8}", 1 => any::<String>(), 1 => "[é\n]{0,400}"];
    let fingerprint = prop_oneof![6 => Just(fingerprint), 1 => word()];
    let words = (word(), word(), word(), word(), word(), prop::option::of(word()));
    let token = || prop::option::weighted(0.5, prop_oneof![3 => 0..4_u32, 1 => any_count()]);
    let numbers = (prop_oneof![8 => Just(4), 1 => any_count()], token(), any_number());
    let limits = prop::option::of([any_count(), any_count(), any_count(), any_count()].prop_map(
        |[max_sessions, max_feed_tokens, session_ttl_seconds, max_answer_rows]| WorkerLimits {
            max_sessions,
            max_feed_tokens,
            session_ttl_seconds,
            max_answer_rows,
        },
    ));
    let start =
        token().prop_map(|token| token.map(|token| Start { start: Some(start::Start::Token(token)) }));
    (words, fingerprint, numbers, limits, start)
        .prop_map(|(words, vocabulary_fingerprint, (vocabulary_size, end_token, number), limits, start)| {
            let (name, architecture, device, incarnation, version, model_fingerprint) = words;
            let card = ModelCard {
                name,
                architecture,
                vocabulary_size,
                vocabulary_fingerprint,
                start,
                end_token,
                parameters: number,
                device,
                limits,
                incarnation,
                version,
                model_fingerprint: model_fingerprint.unwrap_or_default(),
                open_sessions: number as u32,
            };
            card.encode_to_vec()
        })
        .boxed()
}

fn read(bytes: &[u8]) -> Option<ModelCard> {
    let card = bounded(within(64 * bytes.len() + 4096, || ModelCard::decode(bytes)).ok()?);
    let words = [
        &card.name,
        &card.architecture,
        &card.vocabulary_fingerprint,
        &card.device,
        &card.incarnation,
        &card.version,
        &card.model_fingerprint,
    ];
    for word in words.into_iter().filter(|word| !word.is_empty()) {
        assert_one_line(word, LONGEST_WORD);
    }
    Some(card)
}

#[test]
fn a_worker_is_present_only_with_the_vocabulary_that_its_card_speaks_of() {
    let vocabulary = Vocabulary::train_characters("abcd").unwrap();
    let cards = || mutated(card(vocabulary.fingerprint().to_owned()), &[]);
    // At most one of two is hostile now and then, or hardly any pair would come as far as an agreement.
    let whole = || card(vocabulary.fingerprint().to_owned()).prop_map(Encoded);
    let pairs = prop_oneof![(cards(), cards()), (cards(), whole()), (whole(), cards())];
    fuzz("coordinator: model cards", pairs, |(Encoded(first), Encoded(second))| {
        let (Some(first), Some(second)) = (read(&first), read(&second)) else {
            return Verdict::Refused;
        };
        let agreement = Arc::new(Agreement::default());
        // Two replicas of one member.
        let [one, other] = [agreement.join("alto"), agreement.join("alto")];
        assert!(matches!(one.enter(&first), Ok(false)), "there is no vocabulary yet");
        let json = vocabulary.to_json().as_bytes().to_vec();
        let defined = one.define(json, &first).now_or_never().expect("a small tokenizer is read at once");
        match (&defined, other.enter(&second)) {
            (Ok(()), Ok(true)) => assert_eq!(first.model_fingerprint, second.model_fingerprint),
            (_, Err(error)) => assert_one_line(&error.to_string(), LONGEST_SENTENCE),
            (_, Ok(_)) => {}
        }
        match defined {
            Ok(()) => {
                assert_eq!(agreement.vocabulary().as_ref(), Some(&vocabulary));
                assert_eq!(
                    (first.vocabulary_size, first.vocabulary_fingerprint.as_str()),
                    (4, vocabulary.fingerprint())
                );
                assert!(first.end_token.is_none_or(|token| token < 4));
                Verdict::Accepted
            }
            Err(error) => {
                assert_one_line(&error.to_string(), LONGEST_SENTENCE);
                assert_eq!(agreement.vocabulary(), None);
                Verdict::Refused
            }
        }
    });
}
