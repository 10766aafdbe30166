//! Labels by Bayes' rule for every member, fused as distributions over tokens are.

use chorus_proto::v1::{ClassifyReply, ClassifyRequest, FusionOptions, Label, LabelCalibration};
use tonic::Code;

use super::*;
use crate::fusion::Rule;

const TEXT: &str = "gabba";

fn label(name: &str, template: &str) -> Label {
    Label { name: name.to_owned(), template: template.to_owned() }
}

fn labels() -> Vec<Label> {
    vec![label("good", "a{text}"), label("bad", "b{text}h"), label("neither", "{text}cc")]
}

fn asking(rule: Rule) -> ClassifyRequest {
    let fusion =
        FusionOptions { rule: chorus_proto::v1::Rule::from(rule).into(), ..FusionOptions::default() };
    ClassifyRequest {
        text: TEXT.to_owned(),
        labels: labels(),
        fusion: Some(fusion),
        calibration: vec![
            LabelCalibration { member: "cello".to_owned(), scale: Some(0.2), biases: vec![0.3, 0.0, -1.0] },
            LabelCalibration { member: "alto".to_owned(), scale: Some(0.5), biases: Vec::new() },
        ],
    }
}

impl Stage {
    async fn classify(&self, request: ClassifyRequest) -> Result<ClassifyReply, Status> {
        Ok(self.service.classify(Request::new(request)).await?.into_inner())
    }

    /// What a member holds a text for.
    fn likelihood(&self, member: usize, text: &str) -> f64 {
        let tokens = vocabulary().encode(text).unwrap();
        let of_token = |position: usize| {
            let row = self.members[member].model.rows([&tokens[..position]].into_iter());
            row.row(0).unwrap().log_prob(tokens[position]).unwrap()
        };
        (0..tokens.len()).map(of_token).sum()
    }

    /// Each member's probabilities of the labels, as the request of this test calibrates them.
    fn expected(&self) -> [Vec<f64>; 3] {
        let calibrations = [(0.5, [0.0; 3]), (1.0, [0.0; 3]), (0.2, [0.3, 0.0, -1.0])];
        std::array::from_fn(|member| {
            let (scale, biases): (f64, [f64; 3]) = calibrations[member];
            let filled = labels().into_iter().map(|label| label.template.replace("{text}", TEXT));
            let scores: Vec<f64> = filled
                .zip(biases)
                .map(|(text, bias)| scale * self.likelihood(member, &text) + bias)
                .collect();
            let sum: f64 = scores.iter().map(|score| score.exp()).sum();
            scores.iter().map(|score| score.exp() / sum).collect()
        })
    }
}

#[tokio::test]
async fn every_rule_makes_of_labels_what_its_formula_says() {
    let shares = WEIGHTS.map(|weight| weight / 6.0);
    for rule in Rule::ALL {
        let stage = Stage::new("").await;
        let reply = stage.classify(asking(rule)).await.unwrap();
        let members = stage.expected();
        for (row, member) in reply.members.iter().enumerate() {
            assert_eq!(member.name, NAMES[row]);
            for (got, expected) in member.probabilities.iter().zip(&members[row]) {
                assert!((got - expected).abs() < 1e-9, "{member:?} {expected}");
            }
        }
        let of_label = |label: usize, rule| -> f64 {
            let column = members.each_ref().map(|member| member[label]);
            let weighted = column.iter().zip(shares);
            match rule {
                Rule::WeightedAverage | Rule::ThresholdVote => weighted.map(|(p, share)| p * share).sum(),
                Rule::LogLinear => weighted.map(|(p, share)| p.ln() * share).sum::<f64>().exp(),
                Rule::LogitMean => column.iter().map(|p| p.ln() / 3.0).sum::<f64>().exp(),
                Rule::LogitMax => column.into_iter().fold(0.0, f64::max),
            }
        };
        let sum: f64 = (0..3).map(|label| of_label(label, rule)).sum();
        for got in &reply.labels {
            let place = labels().iter().position(|label| label.name == got.name).unwrap();
            let expected = of_label(place, rule) / sum;
            assert!((got.probability - expected).abs() < 1e-6, "{rule}: {got:?} {expected}");
            let votes = members.iter().filter(|member| member[place] > 0.1).count() as u32;
            assert_eq!(got.votes, (rule == Rule::ThresholdVote).then_some(votes));
        }
        let key = |label: &chorus_proto::v1::LabelProbability| (label.votes, label.probability);
        assert!(reply.labels.is_sorted_by(|one, next| key(one) >= key(next)), "{:?}", reply.labels);
        assert_eq!(reply.participation.unwrap().participants, NAMES);
    }
}

#[tokio::test]
async fn a_label_that_comes_after_the_text_has_the_text_read_once() {
    let stage = Stage::new("").await;
    let labels = vec![label("good", "{text}a"), label("bad", "{text}b"), label("neither", "{text}c")];
    let request = ClassifyRequest { text: TEXT.to_owned(), labels, ..ClassifyRequest::default() };
    stage.classify(request).await.unwrap();
    assert_eq!(stage.members[0].feeds().iter().sum::<usize>(), 5 + 3);
}

#[tokio::test]
async fn classifications_that_can_t_be_are_refused() {
    let stage = Stage::new("").await;
    let asking = || asking(Rule::WeightedAverage);
    let labelled = |labels: &[(&str, &str)]| ClassifyRequest {
        labels: labels.iter().map(|(name, template)| label(name, template)).collect(),
        calibration: Vec::new(),
        ..asking()
    };
    let calibrated = |member: &str, scale, biases: &[f64]| ClassifyRequest {
        calibration: vec![LabelCalibration { member: member.to_owned(), scale, biases: biases.to_vec() }],
        ..asking()
    };
    for (request, message) in [
        (
            ClassifyRequest { text: String::new(), ..asking() },
            "text: it is empty; allowed: at least one character",
        ),
        (labelled(&[("a", "{text}")]), "labels: there are 1; allowed: 2 to 10000 (limits.max_candidates)"),
        (
            labelled(&[("a", "{text}"), ("a", "a{text}")]),
            "labels.name: \"a\" is empty or there twice; allowed: a name for each label",
        ),
        (
            labelled(&[("a", "{text}"), ("b", "{text}{text}")]),
            "labels.template: \"{text}{text}\" of \"b\" has to have {text} once, where the text goes",
        ),
        (
            labelled(&[("a", "a{text}"), ("b", "a{text}")]),
            "labels.template: \"a{text}\" of \"b\" is that of another label; allowed: one for each",
        ),
        (
            labelled(&[("a", "{text}"), ("b", "{text}z")]),
            "text: number 1: the vocabulary can't express the character 'z' (U+007A) at position 5 of the text \
             (counted in characters from 0); allowed: text that the members' vocabulary \
             can express",
        ),
        (
            calibrated("tuba", None, &[]),
            "calibration.member: \"tuba\" is no member or there twice; allowed: each of alto, bass, cello once",
        ),
        (
            calibrated("alto", Some(-1.0), &[]),
            "calibration.scale: that of \"alto\" is -1; allowed: a finite number of at least 0",
        ),
        (
            calibrated("alto", None, &[1.0]),
            "calibration.biases: those of \"alto\" are [1.0]; allowed: none, or a finite number for each of 3 labels",
        ),
    ] {
        let refusal = stage.classify(request).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, message));
    }
}
