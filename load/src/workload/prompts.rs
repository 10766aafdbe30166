//! A file of prompts to replay. Knows nothing about where the text comes from or in which order it is used.

use serde::Deserialize;

/// One line of a file of prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A line of text: for whichever kind of call the mix has next.
    Any {
        /// The line.
        text: String,
    },
    /// `{"prompt": "...", "max_tokens": 64}`; the number may be absent.
    Generate {
        /// What is continued.
        text: String,
        /// Tokens to generate.
        max_tokens: Option<u32>,
    },
    /// `{"score": "..."}`.
    Score {
        /// What is scored.
        text: String,
    },
}

/// Why a file can't be replayed.
#[derive(Debug, thiserror::Error)]
pub enum PromptsError {
    /// A line that begins like an object and is none that is known.
    #[error(
        "line {line} can't be read; allowed: a text, {{\"prompt\": \"...\", \"max_tokens\": N}} (without \
         max_tokens too) or {{\"score\": \"...\"}}"
    )]
    Line {
        /// From 1 on.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing to replay.
    #[error("there is no prompt in it: every line is empty")]
    Empty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerateLine {
    prompt: String,
    max_tokens: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoreLine {
    score: String,
}

/// Reads prompts, one a line: a JSON object where the line begins with `{`, else a text as it stands. Empty lines are
/// skipped.
///
/// # Errors
/// A line that is a broken or unknown object, or no prompt at all.
pub fn parse_prompts(text: &str) -> Result<Vec<Prompt>, PromptsError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let prompts: Result<Vec<Prompt>, PromptsError> = lines
        .map(|(index, line)| {
            parse_line(line).map_err(|source| PromptsError::Line { line: index + 1, source })
        })
        .collect();
    let prompts = prompts?;
    if prompts.is_empty() { Err(PromptsError::Empty) } else { Ok(prompts) }
}

fn parse_line(line: &str) -> Result<Prompt, serde_json::Error> {
    if !line.trim_start().starts_with('{') {
        return Ok(Prompt::Any { text: line.to_owned() });
    }
    // Which of the two it wants to be decides whose complaint is worth reading.
    let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)?;
    if keys.contains_key("score") {
        let ScoreLine { score } = serde_json::from_str(line)?;
        return Ok(Prompt::Score { text: score });
    }
    let GenerateLine { prompt, max_tokens } = serde_json::from_str(line)?;
    Ok(Prompt::Generate { text: prompt, max_tokens })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn texts_and_objects_may_be_mixed() {
        let text =
            "ROMEO:\r\n\n  {\"prompt\": \"a\\nb\"}\n{\"score\":\"x\"}\n{\"prompt\":\"\",\"max_tokens\":3}";
        let expected = [
            Prompt::Any { text: "ROMEO:".to_owned() },
            Prompt::Generate { text: "a\nb".to_owned(), max_tokens: None },
            Prompt::Score { text: "x".to_owned() },
            Prompt::Generate { text: String::new(), max_tokens: Some(3) },
        ];
        assert_eq!(parse_prompts(text).unwrap(), expected);
    }

    #[test]
    fn a_line_that_can_t_be_read_is_named_with_what_is_wrong() {
        for (line, cause) in [
            ("{\"prompt\": 3}", "invalid type"),
            ("{\"prompt\": \"a\", \"tokens\": 3}", "unknown field `tokens`"),
            ("{\"score\": \"a\", \"max_tokens\": 3}", "unknown field `max_tokens`"),
            ("{\"prompt\": \"a\", \"max_tokens\": -1}", "invalid value"),
            ("{}", "missing field `prompt`"),
            ("{", "EOF"),
        ] {
            let error = parse_prompts(&format!("fine\n\n{line}\n")).unwrap_err();
            assert!(error.to_string().starts_with("line 3 can't be read; allowed: "), "{error}");
            let source = error.source().unwrap().to_string();
            assert!(source.contains(cause), "{line}: {source}");
        }
        assert!(matches!(parse_prompts("\n \n"), Err(PromptsError::Empty)));
    }
}
