//! [`Method`]: the methods of the public service, as labels. Knows nothing about what they do.

/// A method that clients call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Generate,
    Complete,
    Score,
    Predict,
    Rank,
    Classify,
    Distributions,
    Tokenizer,
    Status,
    /// Of the Open Inference Protocol: one inference.
    ModelInfer,
    /// As many as a client sends on one stream.
    ModelStreamInfer,
    /// Of another service, or none that there is.
    Other,
}

impl Method {
    pub(crate) const ALL: [Self; 12] = [
        Self::Generate,
        Self::Complete,
        Self::Score,
        Self::Predict,
        Self::Rank,
        Self::Classify,
        Self::Distributions,
        Self::Tokenizer,
        Self::Status,
        Self::ModelInfer,
        Self::ModelStreamInfer,
        Self::Other,
    ];

    /// The method that a call's path names. What a caller invents is never a label.
    pub(crate) fn of(path: &str) -> Self {
        let Some(name) = path.strip_prefix("/chorus.v1.Ensemble/") else {
            return match path {
                "/inference.GRPCInferenceService/ModelInfer" => Self::ModelInfer,
                "/inference.GRPCInferenceService/ModelStreamInfer" => Self::ModelStreamInfer,
                _ => Self::Other,
            };
        };
        match name {
            "Generate" => Self::Generate,
            "Complete" => Self::Complete,
            "Score" => Self::Score,
            "Predict" => Self::Predict,
            "Rank" => Self::Rank,
            "Classify" => Self::Classify,
            "Distributions" => Self::Distributions,
            "Tokenizer" => Self::Tokenizer,
            "Status" => Self::Status,
            _ => Self::Other,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Complete => "complete",
            Self::Score => "score",
            Self::Predict => "predict",
            Self::Rank => "rank",
            Self::Classify => "classify",
            Self::Distributions => "distributions",
            Self::Tokenizer => "tokenizer",
            Self::Status => "status",
            Self::ModelInfer => "model_infer",
            Self::ModelStreamInfer => "model_stream_infer",
            Self::Other => "other",
        }
    }

    /// Whether members work for it: only such calls have a span, so that probes of the health fill neither logs nor traces. A
    /// stream of many inferences is no request, and may last for days.
    pub(crate) fn is_work(self) -> bool {
        !matches!(self, Self::Tokenizer | Self::Status | Self::ModelStreamInfer | Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_service_has_its_label_and_nothing_else_has_one() {
        let names: Vec<&str> = Method::ALL.map(Method::name).into();
        let proto = include_str!("../../../proto/proto/chorus/v1/ensemble.proto");
        let methods = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split_once('('));
        let methods: Vec<&str> = methods.map(|(method, _)| method).collect();
        assert_eq!(methods.len() + 3, Method::ALL.len(), "{methods:?}");
        for (method, name) in [("ModelInfer", "model_infer"), ("ModelStreamInfer", "model_stream_infer")] {
            assert_eq!(Method::of(&format!("/{}/{method}", chorus_inference::SERVICE_NAME)).name(), name);
        }
        for method in methods {
            assert_eq!(Method::of(&format!("/chorus.v1.Ensemble/{method}")).name(), method.to_lowercase());
        }
        for path in ["/chorus.v1.Ensemble/Gen", "/grpc.health.v1.Health/Check", "/", "", "/Generate"] {
            assert_eq!(Method::of(path), Method::Other, "{path}");
        }
        assert!(names.iter().all(|name| names.iter().filter(|other| name == *other).count() == 1));
    }
}
