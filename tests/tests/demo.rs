//! The members in `deploy/demo`, as they are in the repository.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_model::ModelParts;
use chorus_tests::models;

/// Of all weights together: what a clone should not exceed.
const MOST_BYTES: u64 = 12_000_000;

#[test]
fn the_demo_members_are_small_and_differ_in_all_but_their_tokenizer() {
    let members = models::DEMO.map(|name| ModelParts::load(&models::demo(name)).unwrap());
    let files =
        models::DEMO.map(|name| models::demo(name).join("model.safetensors").metadata().unwrap().len());
    assert!(files.iter().sum::<u64>() <= MOST_BYTES, "{files:?}");
    for (name, member) in models::DEMO.iter().zip(&members) {
        assert_eq!(&member.config.name, name);
        assert_eq!(member.vocabulary.fingerprint(), members[0].vocabulary.fingerprint());
    }
    let shapes = members.each_ref().map(|member| member.config.hidden_size);
    assert!(shapes[0] != shapes[1] && shapes[1] != shapes[2] && shapes[0] != shapes[2], "{shapes:?}");
}

#[test]
fn every_text_is_expressible_in_the_demo_vocabulary() {
    let vocabulary = ModelParts::load(&models::demo("alto")).unwrap().vocabulary;
    let ascii: String = (0..=127_u8).map(char::from).collect();
    for text in [ascii.as_str(), "\r\n\t\n\n   x", "ſhe’s — 𝄞 für ünseren Chor; 合唱", "<|endoftext|><unk>"]
    {
        let tokens = vocabulary.encode(text).unwrap();
        assert_eq!(vocabulary.decode(&tokens), text);
    }
}
