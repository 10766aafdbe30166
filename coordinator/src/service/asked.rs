//! What every request says before it is checked: how much there is to tokenize, and who is asked.
//!
//! Knows nothing about what is right or wrong in it.

use chorus_proto::v1::{
    DistributionsRequest, FusionOptions, GenerateRequest, Input, PredictRequest, ScoreRequest, input,
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

pub(super) fn text_bytes(input: Option<&Input>) -> usize {
    match input.and_then(|input| input.input.as_ref()) {
        Some(input::Input::Text(text)) => text.len(),
        Some(input::Input::Tokens(_)) | None => 0,
    }
}
