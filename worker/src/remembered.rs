//! The last answers of sessions, in case that a step is repeated: bounded by their bytes over all sessions together,
//! the oldest forgotten first. Pure: knows nothing about steps, states or time.

use chorus_proto::v1;
use foldhash::fast::RandomState;
use hashlink::LinkedHashMap;

use crate::operation::SessionKey;

/// At most one answer for each session.
#[derive(Debug)]
pub(crate) struct RememberedAnswers {
    /// Oldest first.
    answers: LinkedHashMap<SessionKey, Remembered, RandomState>,
    bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Remembered {
    answer: v1::answer::Answer,
    /// An answer's size on the wire is its size in memory but for a few bytes.
    bytes: usize,
}

impl RememberedAnswers {
    /// Holds nothing yet, and never more than `max_bytes` bytes of answers.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { answers: LinkedHashMap::default(), bytes: 0, max_bytes }
    }

    /// The session's answer, if it is still kept.
    pub(crate) fn get(&self, key: SessionKey) -> Option<&v1::answer::Answer> {
        self.answers.get(&key).map(|remembered| &remembered.answer)
    }

    /// Keeps an answer in place of the session's last one, and forgets the oldest ones that leave it no room. An answer
    /// that is larger than all the room is not kept.
    pub(crate) fn keep(&mut self, key: SessionKey, answer: v1::answer::Answer) {
        let bytes = answer.encoded_len();
        self.bytes += bytes;
        if let Some(last) = self.answers.insert(key, Remembered { answer, bytes }) {
            self.bytes -= last.bytes;
        }
        while self.bytes > self.max_bytes
            && let Some((_, oldest)) = self.answers.pop_front()
        {
            self.bytes -= oldest.bytes;
        }
    }

    /// Bytes of all answers that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the session's answer, if there is one.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        if let Some(Remembered { bytes, .. }) = self.answers.remove(&key) {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(session: u64) -> SessionKey {
        SessionKey { stream: 1, session }
    }

    fn answer(values: usize) -> v1::answer::Answer {
        v1::answer::Answer::Targets(v1::Targets { log_probs: vec![0.5; values] })
    }

    fn kept(remembered: &RememberedAnswers) -> Vec<u64> {
        (0..6).filter(|&session| remembered.get(key(session)).is_some()).collect()
    }

    #[test]
    fn the_oldest_answers_make_room_and_a_new_answer_makes_a_session_the_youngest() {
        let mut remembered = RememberedAnswers::new(3 * answer(10).encoded_len());
        for session in [1, 2, 3] {
            remembered.keep(key(session), answer(10));
        }
        assert_eq!(kept(&remembered), [1, 2, 3], "what fits exactly is kept");
        remembered.keep(key(1), answer(9));
        remembered.keep(key(4), answer(10));
        assert_eq!(kept(&remembered), [1, 3, 4]);
        assert_eq!(remembered.get(key(1)), Some(&answer(9)));
    }

    #[test]
    fn an_answer_larger_than_all_the_room_is_not_kept() {
        let mut remembered = RememberedAnswers::new(answer(10).encoded_len());
        remembered.keep(key(1), answer(11));
        assert_eq!((kept(&remembered), remembered.bytes), (vec![], 0));
    }

    proptest! {
        #[test]
        fn the_books_are_right_and_within_the_bound(
            max_bytes in 0_usize..300,
            operations in prop::collection::vec((0_u64..6, prop::option::of(0_usize..20)), 0..60),
        ) {
            let mut remembered = RememberedAnswers::new(max_bytes);
            for (session, values) in operations {
                match values {
                    Some(values) => remembered.keep(key(session), answer(values)),
                    None => remembered.forget(key(session)),
                }
                let bytes: usize = remembered.answers.values().map(|kept| kept.answer.encoded_len()).sum();
                prop_assert_eq!(remembered.bytes, bytes);
                prop_assert!(bytes <= max_bytes);
            }
        }
    }
}
