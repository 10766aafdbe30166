//! From chosen tokens to text that is certain: decoding and stop strings.
//!
//! Knows nothing about how tokens are chosen or sent.

use chorus_text::{TextStream, Vocabulary};

use crate::stop_strings::{Released, StopStrings};

/// So many tokens before the first generated one decide how that one is written (a space before a word, an incomplete
/// character).
const CONTEXT: usize = 64;

/// The text of one generation as it grows.
#[derive(Clone)]
pub(super) struct GeneratedText {
    decoder: TextStream,
    stop: StopStrings,
}

impl GeneratedText {
    pub(super) fn new(vocabulary: &Vocabulary, prompt: &[u32], stop: &[String]) -> Self {
        let context = prompt.get(prompt.len().saturating_sub(CONTEXT)..);
        Self { decoder: vocabulary.decoder_after(context.unwrap_or_default()), stop: StopStrings::new(stop) }
    }

    /// The text that a token makes certain.
    pub(super) fn push(&mut self, token: u32) -> Released {
        let text = self.decoder.push(token).unwrap_or_default();
        self.stop.push(&text)
    }

    /// What was held back, once no token follows.
    pub(super) fn finish(&mut self) -> Released {
        let text = self.decoder.flush().unwrap_or_default();
        let mut released = self.stop.push(&text);
        if released.stop.is_none() {
            released.text.push_str(&self.stop.finish());
        }
        released
    }
}
