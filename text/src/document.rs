//! Reading a `tokenizer.json` that nobody vouches for. The tokenizers library trusts its input here and there (it
//! panics on some merges and only logs wrong ids), so the document is checked before and after. This module knows
//! nothing about encoding or decoding.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::models::ModelWrapper;

use crate::error::VocabularyError;

/// Builds the tokenizer that the bytes describe.
pub(crate) fn read(json: &[u8]) -> Result<Tokenizer, VocabularyError> {
    let document: Value = serde_json::from_slice(json).map_err(VocabularyError::Json)?;
    check_merges(&document)?;
    // The checks above turn the known panics into errors; this catches those that are not known.
    let built = catch_unwind(AssertUnwindSafe(|| serde_json::from_slice::<Tokenizer>(json)));
    let tokenizer = built
        .map_err(|_| VocabularyError::Damaged)?
        .map_err(|cause| VocabularyError::NotATokenizer(cause.into()))?;
    check_added_tokens(&document, &tokenizer)?;
    Ok(tokenizer)
}

/// What the library makes of ids; none where it fails or, as some decoders do on tokens that they do not expect, panics.
pub(crate) fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| tokenizer.decode(ids, false).ok())).ok().flatten()
}

/// Whether the library can write every token, of so many.
pub(crate) fn check_decoder(tokenizer: &Tokenizer, tokens: usize) -> Result<(), VocabularyError> {
    match (0..).take(tokens).find(|id| decode(tokenizer, &[*id]).is_none()) {
        Some(token) => Err(VocabularyError::Undecodable { token }),
        None => Ok(()),
    }
}

/// Takes out what makes an encoding shorter, longer or random.
pub(crate) fn forget_training(tokenizer: &mut Tokenizer) -> Result<(), VocabularyError> {
    tokenizer.with_truncation(None).map_err(VocabularyError::NotATokenizer)?;
    tokenizer.with_padding(None);
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        tokenizer.with_model(bpe);
    }
    Ok(())
}

/// The token of every id, where the ids are `0..n`.
pub(crate) fn tokens_by_id(tokenizer: &Tokenizer) -> Result<Vec<String>, VocabularyError> {
    let mut pairs: Vec<(u32, String)> =
        tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
    pairs.sort_unstable();
    for pair in pairs.windows(2) {
        if let [(id, first), (same, second)] = pair
            && id == same
        {
            return Err(VocabularyError::DuplicateId {
                id: *id,
                first: first.clone(),
                second: second.clone(),
            });
        }
    }
    let Some(largest) = pairs.last().map(|(id, _)| *id) else {
        return Err(VocabularyError::Empty);
    };
    if let Some((missing, _)) = (0..=largest).zip(&pairs).find(|(expected, (id, _))| expected != id) {
        return Err(VocabularyError::MissingId { missing, largest });
    }
    Ok(pairs.into_iter().map(|(_, token)| token).collect())
}

/// The token that the model puts in place of what it does not know, if it names one.
pub(crate) fn unknown_token(document: &Value) -> Option<String> {
    let model = document.get("model")?;
    if let Some(token) = model.get("unk_token").and_then(Value::as_str) {
        return Some(token.to_owned());
    }
    let index = usize::try_from(model.get("unk_id")?.as_u64()?).ok()?;
    model.get("vocab")?.get(index)?.get(0)?.as_str().map(str::to_owned)
}

/// Every merge must join two tokens to a third: the library slices out of bounds otherwise.
fn check_merges(document: &Value) -> Result<(), VocabularyError> {
    let Some(model) = document.get("model") else {
        return Ok(());
    };
    let (Some(vocab), Some(merges)) =
        (model.get("vocab").and_then(Value::as_object), model.get("merges").and_then(Value::as_array))
    else {
        return Ok(());
    };
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    for (index, merge) in merges.iter().enumerate() {
        let Some((left, right)) = merge_parts(merge) else {
            continue;
        };
        let tail = right.strip_prefix(prefix).unwrap_or(right);
        let whole = format!("{left}{tail}");
        let missing = [left, right, &whole].into_iter().find(|token| !vocab.contains_key(*token));
        let misplaced = (!right.starts_with(prefix)).then_some(prefix);
        if let Some(missing) = missing.or(misplaced) {
            let missing = missing.to_owned();
            return Err(VocabularyError::BadMerge { index, left: left.into(), right: right.into(), missing });
        }
    }
    Ok(())
}

/// A merge is `["a", "b"]`, or `"a b"` in older files.
fn merge_parts(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) if text.starts_with("#version") => None,
        Value::String(text) => text.split_once(' '),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left, right)),
            _ => None,
        },
        _ => None,
    }
}

/// The library only logs it when an added token does not get the id that the document states.
fn check_added_tokens(document: &Value, tokenizer: &Tokenizer) -> Result<(), VocabularyError> {
    let added = document.get("added_tokens").and_then(Value::as_array);
    for token in added.into_iter().flatten() {
        let (Some(content), Some(stated)) =
            (token.get("content").and_then(Value::as_str), token.get("id").and_then(Value::as_u64))
        else {
            continue;
        };
        let actual = tokenizer.token_to_id(content);
        if actual.map(u64::from) != Some(stated) {
            return Err(VocabularyError::AddedTokenId { token: content.to_owned(), stated, actual });
        }
    }
    Ok(())
}
