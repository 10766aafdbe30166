//! Stop strings in text that comes in pieces: holds back what may be the beginning of one. Knows nothing about tokens.

/// Watches a text for stop strings. The one that is complete first ends the text, wherever the pieces were cut; of those
/// that are complete at the same character, the longest.
#[derive(Clone, Debug)]
pub struct StopStrings {
    watched: Vec<Watched>,
    held: String,
    stopped: bool,
}

/// What has become certain with a piece of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Text that belongs to the answer: everything before the stop string, as soon as it can't be part of one.
    pub text: String,
    /// Which stop string ended the text, by its place in the list.
    pub stop: Option<usize>,
}

/// A stop string with the automaton of Knuth, Morris and Pratt (1977) over its bytes. UTF-8 is self-synchronising, so
/// what matches begins and ends at characters.
#[derive(Clone, Debug)]
struct Watched {
    bytes: Vec<u8>,
    /// For every length of a beginning: the length of the longest shorter beginning that it ends with.
    fallback: Vec<usize>,
    /// How many of its bytes the text ends with.
    matched: usize,
}

impl StopStrings {
    /// Watches for these; empty ones are never found.
    pub fn new<S: AsRef<str>>(stops: impl IntoIterator<Item = S>) -> Self {
        let watched = stops.into_iter().map(|stop| Watched::new(stop.as_ref())).collect();
        Self { watched, held: String::new(), stopped: false }
    }

    /// Takes the next piece of text. After a stop string nothing comes out any more.
    pub fn push(&mut self, text: &str) -> Released {
        if self.stopped {
            return Released::default();
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (index, byte) in text.bytes().enumerate() {
            if let Some((stop, length)) = self.step(byte) {
                self.stopped = true;
                self.held.truncate(before + index + 1 - length);
                let text = std::mem::take(&mut self.held);
                return Released { text, stop: Some(stop) };
            }
        }
        let hold = self.watched.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - hold);
        let text = std::mem::replace(&mut self.held, rest);
        Released { text, stop: None }
    }

    /// The text ended for another reason: what was held back is part of it.
    pub fn finish(&mut self) -> String {
        self.stopped = true;
        std::mem::take(&mut self.held)
    }

    /// Advances every automaton; the longest stop string that is now complete, with its length in bytes.
    fn step(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut found: Option<(usize, usize)> = None;
        for (index, stop) in self.watched.iter_mut().enumerate() {
            let length = stop.bytes.len();
            if stop.step(byte) && found.is_none_or(|(_, longest)| length > longest) {
                found = Some((index, length));
            }
        }
        found
    }
}

impl Watched {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes().to_vec();
        let mut watched = Self { fallback: vec![0; bytes.len() + 1], bytes, matched: 0 };
        // The fallback of a beginning is where the automaton stands after reading the beginning without its first byte.
        for length in 2..=watched.bytes.len() {
            watched.step(stop.as_bytes()[length - 1]);
            watched.fallback[length] = watched.matched;
        }
        watched.matched = 0;
        watched
    }

    /// Reads one byte; whether the stop string is complete now. It is not stepped any further then.
    fn step(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes.get(self.matched) != Some(&byte) {
            self.matched = self.fallback[self.matched];
        }
        if self.bytes.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        !self.bytes.is_empty() && self.matched == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text before the stop string that is complete first, by looking at every beginning of the whole text.
    fn naive(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in (1..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let complete = stops.iter().enumerate().filter(|(_, stop)| text[..end].ends_with(*stop));
            if let Some((index, stop)) = complete.rev().max_by_key(|(_, stop)| stop.len()) {
                return (text[..end - stop.len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    fn streamed(stops: &[String], pieces: &[String]) -> (String, Option<usize>) {
        let mut matcher = StopStrings::new(stops);
        let mut text = String::new();
        for piece in pieces {
            let released = matcher.push(piece);
            text.push_str(&released.text);
            if released.stop.is_some() {
                assert_eq!(matcher.push("more"), Released::default());
                return (text, released.stop);
            }
        }
        text.push_str(&matcher.finish());
        (text, None)
    }

    #[test]
    fn only_what_may_begin_a_stop_string_is_held_back() {
        let mut matcher = StopStrings::new(["\n\nROMEO"]);
        let texts = ["one\n", "two\n\n", "\nROM", "EOS"].map(|piece| matcher.push(piece));
        assert_eq!(texts[0].text, "one");
        assert_eq!(texts[1].text, "\ntwo");
        assert_eq!(texts[2].text, "\n");
        assert_eq!(texts[3], Released { text: String::new(), stop: Some(0) });
    }

    #[test]
    fn the_stop_string_that_is_complete_first_ends_the_text() {
        let mut matcher = StopStrings::new(["abcd", "bc"]);
        assert_eq!(matcher.push("xab").text, "x");
        assert_eq!(matcher.push("cd"), Released { text: "a".to_owned(), stop: Some(1) });
    }

    #[test]
    fn without_stop_strings_nothing_is_held_back() {
        let mut matcher = StopStrings::new(Vec::<String>::new());
        assert_eq!(matcher.push("aé").text, "aé");
        assert_eq!(matcher.finish(), "");
    }

    proptest! {
        #[test]
        fn any_chunking_finds_what_a_search_of_the_whole_text_finds(
            stops in prop::collection::vec("[abé]{1,5}", 0..4),
            pieces in prop::collection::vec("[abéc]{0,4}", 0..12),
        ) {
            prop_assert_eq!(streamed(&stops, &pieces), naive(&stops, &pieces.concat()));
        }
    }
}
