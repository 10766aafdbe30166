//! The answers of `chorus.v1.Ensemble` as a load test reads them: only what it counts, so that a token costs no
//! allocation, however many members it names. The same bytes on the wire, fields that are not here are skipped.

/// Of a `GenerateReply`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GenerateGlance {
    /// A token came.
    #[prost(message, optional, tag = "1")]
    pub(super) token: Option<Present>,
    /// Who took part.
    #[prost(message, optional, tag = "3")]
    pub(super) participation: Option<Missing>,
    /// In the last message.
    #[prost(message, optional, tag = "4")]
    pub(super) end: Option<EndGlance>,
}

/// Of a `CompleteReply`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CompleteGlance {
    /// The tokens that came.
    #[prost(message, repeated, tag = "1")]
    pub(super) tokens: Vec<Present>,
    /// Who took part.
    #[prost(message, optional, tag = "3")]
    pub(super) participation: Option<Missing>,
    /// What ended it.
    #[prost(message, optional, tag = "4")]
    pub(super) end: Option<EndGlance>,
}

/// Of a `ScoreReply`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ScoreGlance {
    /// Tokens that were scored.
    #[prost(uint32, tag = "1")]
    pub(super) tokens: u32,
    /// Who took part.
    #[prost(message, optional, tag = "7")]
    pub(super) participation: Option<Missing>,
}

/// Of a `GenerationEnd`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct EndGlance {
    /// Tokens of the prompt.
    #[prost(uint32, tag = "2")]
    pub(super) prompt_tokens: u32,
}

/// Of a `Participation`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Missing {
    /// Members that are missing.
    #[prost(message, repeated, tag = "2")]
    pub(super) missing: Vec<Present>,
}

/// A message that is there, whatever is in it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Present {}

impl Missing {
    /// Whether an answer was made without a member.
    pub(super) fn is_degraded(participation: Option<&Self>) -> bool {
        participation.is_some_and(|participation| !participation.missing.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{
        CompleteReply, GenerateReply, GeneratedToken, GenerationEnd, MissingMember, Participation, ScoreReply,
    };
    use prost::Message as _;

    use super::*;

    fn participation(missing: &[&str]) -> Participation {
        let missing = missing.iter().map(|name| MissingMember {
            name: (*name).into(),
            reason: "gone".into(),
            ..MissingMember::default()
        });
        Participation {
            participants: vec!["alto".into(), "bass".into()],
            missing: missing.collect(),
            ..Participation::default()
        }
    }

    #[test]
    fn a_glance_sees_what_the_whole_message_says() {
        for (token, missing, end) in [(true, &[][..], false), (true, &["tenor"], false), (false, &[], true)] {
            let whole = GenerateReply {
                token: token.then(|| GeneratedToken { id: 7, log_prob: Some(-1.0), ..Default::default() }),
                text: "some text".to_owned(),
                participation: Some(participation(missing)),
                end: end.then(|| GenerationEnd {
                    prompt_tokens: 12,
                    generated_tokens: 3,
                    ..Default::default()
                }),
            };
            let glance = GenerateGlance::decode(whole.encode_to_vec().as_slice()).unwrap();
            assert_eq!(glance.token.is_some(), token);
            assert_eq!(Missing::is_degraded(glance.participation.as_ref()), !missing.is_empty());
            assert_eq!(glance.end.map(|end| end.prompt_tokens), end.then_some(12));
        }
        let whole = CompleteReply {
            tokens: vec![GeneratedToken { id: 7, ..Default::default() }; 3],
            text: "some text".to_owned(),
            participation: Some(participation(&["bass"])),
            end: Some(GenerationEnd { prompt_tokens: 12, ..Default::default() }),
        };
        let glance = CompleteGlance::decode(whole.encode_to_vec().as_slice()).unwrap();
        assert_eq!((glance.tokens.len(), glance.end.map(|end| end.prompt_tokens)), (3, Some(12)));
        assert!(Missing::is_degraded(glance.participation.as_ref()));
        let whole =
            ScoreReply { tokens: 9, participation: Some(participation(&["bass"])), ..Default::default() };
        let glance = ScoreGlance::decode(whole.encode_to_vec().as_slice()).unwrap();
        assert_eq!(glance.tokens, 9);
        assert!(Missing::is_degraded(glance.participation.as_ref()));
    }
}
