//! What every request says before it is checked: how much there is to tokenize, and who is asked.
//!
//! Knows nothing about what is right or wrong in it.

use chorus_proto::v1::{
    ClassifyRequest, DistributionsRequest, FusionOptions, GenerateRequest, Input, PredictRequest,
    RankRequest, ScoreRequest, input,
};

/// A request of the public service.
pub(super) trait Asked {
    /// How much there is to tokenize, in bytes.
    fn text_bytes(&self) -> usize;

    /// What it changes of the configured fusion.
    fn fusion(&self) -> Option<&FusionOptions>;

    /// The members that are asked; empty for all.
    fn members(&self) -> &[String] {
        self.fusion().map_or(&[], |fusion| &fusion.members)
    }
}

impl Asked for GenerateRequest {
    fn text_bytes(&self) -> usize {
        text_bytes(self.prompt.as_ref())
    }

    fn fusion(&self) -> Option<&FusionOptions> {
        self.fusion.as_ref()
    }
}

impl Asked for ScoreRequest {
    fn text_bytes(&self) -> usize {
        text_bytes(self.input.as_ref())
    }

    fn fusion(&self) -> Option<&FusionOptions> {
        self.fusion.as_ref()
    }
}

impl Asked for PredictRequest {
    fn text_bytes(&self) -> usize {
        text_bytes(self.prefix.as_ref())
    }

    fn fusion(&self) -> Option<&FusionOptions> {
        self.fusion.as_ref()
    }
}

impl Asked for DistributionsRequest {
    fn text_bytes(&self) -> usize {
        text_bytes(self.input.as_ref())
    }

    fn fusion(&self) -> Option<&FusionOptions> {
        self.fusion.as_ref()
    }
}

impl Asked for RankRequest {
    fn text_bytes(&self) -> usize {
        let candidates = self.candidates.iter().map(|candidate| candidate.continuation.as_ref());
        let contexts = [self.context.as_ref(), self.prior_context.as_ref()];
        candidates.chain(contexts).map(text_bytes).sum()
    }

    fn fusion(&self) -> Option<&FusionOptions> {
        self.fusion.as_ref()
    }
}

impl Asked for ClassifyRequest {
    fn text_bytes(&self) -> usize {
        self.labels.iter().map(|label| label.template.len() + self.text.len()).sum()
    }

    fn fusion(&self) -> Option<&FusionOptions> {
        self.fusion.as_ref()
    }
}

fn text_bytes(input: Option<&Input>) -> usize {
    match input.and_then(|input| input.input.as_ref()) {
        Some(input::Input::Text(text)) => text.len(),
        Some(input::Input::Tokens(_)) | None => 0,
    }
}
