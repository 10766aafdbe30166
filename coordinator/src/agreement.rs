//! [`Agreement`]: the one vocabulary of an ensemble, which the first member in the order of the configuration defines that is
//! reached, and the one model of each member's replicas.
//!
//! Knows nothing about how a worker's card or tokenizer arrive.

use std::collections::BTreeMap;
use std::sync::Arc;

use chorus_proto::v1::ModelCard;
use chorus_text::{Vocabulary, VocabularyError};
use tokio::sync::watch;

/// Bytes of a tokenizer that are read at once.
const SMALL_TOKENIZER: usize = 64 * 1024;

/// What the workers of one ensemble must have in common.
///
/// While there is no vocabulary, a replica waits for those before it until their first attempt has failed. A vocabulary
/// that is defined stays, unless a replica comes with another while nobody is present who speaks it; and so does the model
/// of a member.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    table: watch::Sender<Table>,
}

/// One replica's seat in the agreement. Dropping it leaves for good.
#[derive(Debug)]
pub(crate) struct Delegate {
    agreement: Arc<Agreement>,
    number: usize,
    member: String,
}

#[derive(Debug, Default)]
struct Table {
    defined: Option<Defined>,
    /// By number: in the order of the configuration, and later ones as they came.
    seats: BTreeMap<usize, Seat>,
    next_number: usize,
}

#[derive(Debug)]
struct Seat {
    member: String,
    standing: Standing,
}

#[derive(Debug)]
struct Defined {
    vocabulary: Vocabulary,
    /// The name of the member whose vocabulary it is.
    by: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Its first attempt is still under way.
    Awaited,
    /// It can't be reached, or it does not agree.
    Absent,
    /// It speaks the vocabulary, and hosts the model of this fingerprint as its member's other replicas do.
    Present { model: String },
}

/// Why a worker can't be a member of this ensemble.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disagreement {
    /// Its tokenizer can't be read.
    #[error("its tokenizer can't be used: {0}")]
    Tokenizer(VocabularyError),
    /// It speaks of other tokens.
    #[error("it has another vocabulary ({theirs}) than the ensemble ({ours}, as {by} defined it)")]
    Fingerprint {
        /// The worker's fingerprint.
        theirs: String,
        /// The ensemble's.
        ours: String,
        /// The member that defined the ensemble's.
        by: String,
    },
    /// Its model does not fit its tokenizer.
    #[error("its model has {model} tokens, but the vocabulary {vocabulary}")]
    Size {
        /// Tokens of the model, by its card.
        model: u32,
        /// Tokens of the vocabulary.
        vocabulary: u32,
    },
    /// A card that names a token which does not exist.
    #[error("its end token {token} is not in the vocabulary of {vocabulary} tokens")]
    EndToken {
        /// The token.
        token: u32,
        /// Tokens of the vocabulary.
        vocabulary: u32,
    },
    /// It hosts something else than the member's other replicas.
    #[error("it hosts another model ({theirs}) than the member's other replicas ({ours})")]
    Model {
        /// The worker's fingerprint.
        theirs: String,
        /// Theirs.
        ours: String,
    },
    /// Whether it hosts the same can't be known.
    #[error("it does not say which model it hosts, so it can't be one of several replicas")]
    UnknownModel,
    /// The reading of the tokenizer failed inside this process.
    #[error("its tokenizer could not be read")]
    Interrupted,
}

impl Agreement {
    /// The vocabulary, once it is known.
    pub(crate) fn vocabulary(&self) -> Option<Vocabulary> {
        self.table.borrow().defined.as_ref().map(|defined| defined.vocabulary.clone())
    }

    /// The next replica in the order of the configuration, one of this member.
    pub(crate) fn join(self: &Arc<Self>, member: &str) -> Delegate {
        let mut number = 0;
        self.table.send_modify(|table| {
            number = table.next_number;
            table.next_number += 1;
            let seat = Seat { member: member.to_owned(), standing: Standing::Awaited };
            table.seats.insert(number, seat);
        });
        Delegate { agreement: Arc::clone(self), number, member: member.to_owned() }
    }
}

impl Delegate {
    /// Resolves when there is a vocabulary, or when it is this replica's turn to define it.
    pub(crate) async fn turn(&self) {
        let mut table = self.agreement.table.subscribe();
        let settled = |table: &Table| {
            let mut before = table.seats.range(..self.number);
            table.defined.is_some() || before.all(|(_, seat)| seat.standing != Standing::Awaited)
        };
        // The sender lives as long as this delegate.
        let _ = table.wait_for(settled).await;
    }

    /// Makes the worker with this card a replica that is present, if it speaks the ensemble's vocabulary. False where the
    /// worker's own vocabulary may become the ensemble's: [`Delegate::define`] is the way to be present then.
    ///
    /// # Errors
    /// What does not agree.
    pub(crate) fn enter(&self, card: &ModelCard) -> Result<bool, Disagreement> {
        let mut entered = Ok(false);
        self.agreement.table.send_if_modified(|table| {
            entered = table.check(card, self.number);
            matches!(entered, Ok(true)) && table.set(self.number, present(card))
        });
        entered
    }

    /// Makes the vocabulary in `tokenizer_json` the ensemble's and the replica present, unless somebody was faster.
    /// `card` is that of the worker that sent it.
    ///
    /// # Errors
    /// The bytes are no tokenizer, the worker's card disagrees with its own tokenizer, or with somebody who was faster.
    pub(crate) async fn define(&self, tokenizer_json: Vec<u8>, card: &ModelCard) -> Result<(), Disagreement> {
        let vocabulary = read(tokenizer_json).await?.map_err(Disagreement::Tokenizer)?;
        let defined = Defined { vocabulary, by: self.member.clone() };
        agree(card, &defined)?;
        let mut entered = Ok(false);
        self.agreement.table.send_modify(|table| {
            entered = table.check(card, self.number);
            if matches!(entered, Ok(false)) {
                table.defined = Some(defined);
            }
            if entered.is_ok() {
                table.set(self.number, present(card));
            }
        });
        entered.map(|_| ())
    }

    /// The replica can't be reached (any more), or it does not agree: nobody waits for it.
    pub(crate) fn leave(&self) {
        self.agreement.table.send_if_modified(|table| table.set(self.number, Standing::Absent));
    }
}

impl Drop for Delegate {
    fn drop(&mut self) {
        self.agreement.table.send_modify(|table| {
            table.seats.remove(&self.number);
        });
    }
}

/// Tens of megabytes of JSON would hold up everything else on this thread.
async fn read(tokenizer_json: Vec<u8>) -> Result<Result<Vocabulary, VocabularyError>, Disagreement> {
    if tokenizer_json.len() <= SMALL_TOKENIZER {
        return Ok(Vocabulary::from_json(&tokenizer_json));
    }
    let reading = tokio::task::spawn_blocking(move || Vocabulary::from_json(&tokenizer_json));
    reading.await.map_err(|_| Disagreement::Interrupted)
}

fn present(card: &ModelCard) -> Standing {
    Standing::Present { model: card.model_fingerprint.clone() }
}

impl Table {
    /// Whether the worker speaks the vocabulary; false where nobody else does, so that it need not.
    fn check(&self, card: &ModelCard, number: usize) -> Result<bool, Disagreement> {
        self.check_model(card, number)?;
        let Some(defined) = &self.defined else {
            return Ok(false);
        };
        match agree(card, defined) {
            Ok(()) => Ok(true),
            Err(_) if self.present_beside(number).next().is_none() => Ok(false),
            Err(disagreement) => Err(disagreement),
        }
    }

    /// Whether the worker hosts what the other replicas of its member do that are present.
    fn check_model(&self, card: &ModelCard, number: usize) -> Result<(), Disagreement> {
        let member = self.seats.get(&number).map(|seat| seat.member.as_str());
        let mut others = self.present_beside(number).filter(|(other, _)| Some(*other) == member);
        match others.next() {
            Some(_) if card.model_fingerprint.is_empty() => Err(Disagreement::UnknownModel),
            Some((_, model)) if model != card.model_fingerprint => {
                Err(Disagreement::Model { theirs: card.model_fingerprint.clone(), ours: model.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Member and model of the other replicas that are present.
    fn present_beside(&self, number: usize) -> impl Iterator<Item = (&str, &str)> {
        self.seats.iter().filter_map(move |(other, seat)| match &seat.standing {
            Standing::Present { model } if *other != number => Some((seat.member.as_str(), model.as_str())),
            _ => None,
        })
    }

    /// True where that is news.
    fn set(&mut self, number: usize, next: Standing) -> bool {
        let Some(seat) = self.seats.get_mut(&number) else {
            return false;
        };
        let is_news = seat.standing != next;
        seat.standing = next;
        is_news
    }
}

fn agree(card: &ModelCard, defined: &Defined) -> Result<(), Disagreement> {
    let vocabulary = &defined.vocabulary;
    if card.vocabulary_fingerprint != vocabulary.fingerprint() {
        return Err(Disagreement::Fingerprint {
            theirs: card.vocabulary_fingerprint.clone(),
            ours: vocabulary.fingerprint().to_owned(),
            by: defined.by.clone(),
        });
    }
    if card.vocabulary_size != vocabulary.len() {
        return Err(Disagreement::Size { model: card.vocabulary_size, vocabulary: vocabulary.len() });
    }
    match card.end_token.filter(|token| *token >= vocabulary.len()) {
        Some(token) => Err(Disagreement::EndToken { token, vocabulary: vocabulary.len() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::testing::scripted_replica::card;

    fn vocabulary(characters: &str) -> Vocabulary {
        Vocabulary::train_characters(characters).unwrap()
    }

    /// A whole handshake with a worker of this vocabulary.
    async fn arrive(delegate: &Delegate, vocabulary: &Vocabulary) -> Result<(), Disagreement> {
        let card = card(&delegate.member, vocabulary);
        delegate.turn().await;
        if delegate.enter(&card)? {
            return Ok(());
        }
        delegate.define(vocabulary.to_json().as_bytes().to_vec(), &card).await
    }

    fn fingerprint(agreement: &Agreement) -> String {
        agreement.vocabulary().unwrap().fingerprint().to_owned()
    }

    #[tokio::test]
    async fn the_first_in_the_configuration_defines_it_and_not_the_first_to_connect() {
        let agreement = Arc::new(Agreement::default());
        let [alto, bass, tenor] = ["alto", "bass", "tenor"].map(|name| agreement.join(name));
        let (ours, other) = (vocabulary("abc"), vocabulary("xyz"));
        let mut early = std::pin::pin!(arrive(&tenor, &other));
        assert!(early.as_mut().now_or_never().is_none(), "it waits for those before it");
        arrive(&alto, &ours).await.unwrap();
        arrive(&bass, &ours).await.unwrap();
        let refusal = early.await.unwrap_err().to_string();
        for part in [ours.fingerprint(), other.fingerprint(), "as alto defined it"] {
            assert!(refusal.contains(part), "{refusal}");
        }
        assert_eq!(fingerprint(&agreement), ours.fingerprint());
    }

    #[tokio::test]
    async fn nobody_waits_for_the_dead() {
        let agreement = Arc::new(Agreement::default());
        let [alto, bass, tenor] = ["alto", "bass", "tenor"].map(|name| agreement.join(name));
        let ours = vocabulary("abc");
        let mut early = std::pin::pin!(arrive(&tenor, &ours));
        assert!(early.as_mut().now_or_never().is_none());
        alto.leave();
        assert!(early.as_mut().now_or_never().is_none());
        drop(bass);
        early.await.unwrap();
        assert_eq!(fingerprint(&agreement), ours.fingerprint());
    }

    #[tokio::test]
    async fn a_vocabulary_that_nobody_speaks_any_more_is_replaced() {
        let agreement = Arc::new(Agreement::default());
        let [alto, bass] = ["alto", "bass"].map(|name| agreement.join(name));
        let (wrong, right) = (vocabulary("xyz"), vocabulary("abc"));
        arrive(&alto, &wrong).await.unwrap();
        assert!(matches!(arrive(&bass, &right).await, Err(Disagreement::Fingerprint { .. })));
        alto.leave();
        arrive(&bass, &right).await.unwrap();
        assert_eq!(fingerprint(&agreement), right.fingerprint());
        let refusal = arrive(&alto, &wrong).await.unwrap_err().to_string();
        assert!(refusal.contains("as bass defined it"), "{refusal}");
    }
    #[tokio::test]
    async fn the_replicas_of_a_member_host_one_model_and_a_new_one_only_when_the_old_is_gone() {
        let agreement = Arc::new(Agreement::default());
        let [first, second, bass] = ["alto", "alto", "bass"].map(|name| agreement.join(name));
        let ours = vocabulary("abc");
        let of = |model: &str| ModelCard { model_fingerprint: model.to_owned(), ..card("any", &ours) };
        first.define(ours.to_json().as_bytes().to_vec(), &of("old")).await.unwrap();
        assert!(bass.enter(&of("another")).unwrap(), "another member is another model");
        let refusal = second.enter(&of("new")).unwrap_err().to_string();
        assert_eq!(refusal, "it hosts another model (new) than the member's other replicas (old)");
        assert!(matches!(second.enter(&of("")), Err(Disagreement::UnknownModel)));
        assert!(second.enter(&of("old")).unwrap());
        second.leave();
        drop(first);
        assert!(second.enter(&of("new")).unwrap());
    }
}
