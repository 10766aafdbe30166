//! A request's text or token ids. Knows nothing about what is done with them.

use chorus_proto::v1::{Input, input};

use super::{RequestError, Terms};

/// The tokens of an input: at least one, at most the limit, all in the vocabulary.
pub(super) fn check(
    field: &'static str,
    input: Option<Input>,
    terms: &Terms<'_>,
) -> Result<Vec<u32>, RequestError> {
    let tokens = match input.and_then(|input| input.input) {
        None => Err("it is missing; allowed: text or token ids".to_owned()),
        Some(input::Input::Text(text)) => tokens_of_text(&text, terms),
        Some(input::Input::Tokens(tokens)) => tokens_of_ids(&tokens.ids, terms),
    };
    tokens.map_err(|message| RequestError::new(field, message))
}

fn tokens_of_text(text: &str, terms: &Terms<'_>) -> Result<Vec<u32>, String> {
    let (bytes, most) = (text.len(), terms.limits.max_input_bytes);
    if text.is_empty() {
        return Err(format!("the text is empty; allowed: 1 to {most} bytes"));
    }
    if bytes > most as usize {
        return Err(format!("the text has {bytes} bytes; allowed: 1 to {most} (limits.max_input_bytes)"));
    }
    let tokens = terms
        .vocabulary
        .encode(text)
        .map_err(|error| format!("{error}; allowed: text that the members' vocabulary can express"))?;
    check_count(tokens.len(), terms)?;
    Ok(tokens)
}

fn tokens_of_ids(ids: &[i64], terms: &Terms<'_>) -> Result<Vec<u32>, String> {
    check_count(ids.len(), terms)?;
    in_vocabulary(ids, terms)
}

fn in_vocabulary(ids: &[i64], terms: &Terms<'_>) -> Result<Vec<u32>, String> {
    let size = terms.vocabulary.len();
    let token = |(position, id): (usize, &i64)| match u32::try_from(*id) {
        Ok(token) if token < size => Ok(token),
        _ => Err(format!(
            "the token id at position {position} is {id}; allowed: 0 to {}, the members' vocabulary",
            size.saturating_sub(1)
        )),
    };
    ids.iter().enumerate().map(token).collect()
}

/// The tokens of several inputs, each at least one; all of them together are within the limits of one.
pub(super) fn check_all(
    field: &'static str,
    inputs: impl Iterator<Item = Option<Input>>,
    terms: &Terms<'_>,
) -> Result<Vec<Vec<u32>>, RequestError> {
    let (mut all, mut sum) = (Vec::new(), 0_usize);
    let most = terms.limits.max_input_tokens;
    for (place, given) in inputs.enumerate() {
        let tokens = check(field, given, terms);
        let tokens =
            tokens.map_err(|error| RequestError::new(field, format!("number {place}: {}", error.message)))?;
        sum += tokens.len();
        if sum > most as usize {
            let message = format!(
                "they have more than {most} tokens together; allowed: at most as many (limits.max_input_tokens)"
            );
            return Err(RequestError::new(field, message));
        }
        all.push(tokens);
    }
    Ok(all)
}

/// Tokens of a set: each in the vocabulary; ascending, each once.
pub(super) fn distinct_tokens(
    field: &'static str,
    ids: &[i64],
    terms: &Terms<'_>,
) -> Result<Vec<u32>, RequestError> {
    let tokens = in_vocabulary(ids, terms).map_err(|message| RequestError::new(field, message));
    let mut tokens = tokens?;
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

fn check_count(tokens: usize, terms: &Terms<'_>) -> Result<(), String> {
    let most = terms.limits.max_input_tokens;
    if (1..=most as usize).contains(&tokens) {
        return Ok(());
    }
    Err(format!("it has {tokens} tokens; allowed: 1 to {most} (limits.max_input_tokens)"))
}
