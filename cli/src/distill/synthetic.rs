//! The text that the ensemble writes itself: passages of a text, each with what the ensemble writes after it, kept part by part.
//! Knows nothing about what is learned from it.

use std::path::Path;

use anyhow::Context as _;
use chorus_proto::v1::{FusionOptions, GenerateRequest, SamplingOptions};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use safetensors::SafeTensors;

use super::teach::description;
use crate::learn::{
    Cache, Collecting, Manifest, OnChange, Part, RunningEnsemble, Tensors, Unanswered, all_there, hex,
    input_of, list, parts, refused,
};

/// Passages that are kept together.
const PASSAGES: usize = 16;
/// Those of them after which the ensemble writes at a time: with all parts that are asked about at a time enough for batches, and
/// far from all the sessions that it has for everybody.
const AT_A_TIME: usize = 4;
/// 2^64 over the golden ratio: its multiples, modulo 2^64, cover an interval evenly however many they are (Knuth, The Art of
/// Computer Programming 3, 6.4).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// What is to be written.
pub(super) struct Synthetic<'a> {
    /// The text of which the passages are.
    pub(super) data: &'a [u32],
    /// Tokens in all, of which half are written: as many whole passages as these hold.
    pub(super) tokens: usize,
    /// Tokens of a passage, and of what is written after it.
    pub(super) passage_tokens: usize,
    pub(super) seed: u64,
}

impl Synthetic<'_> {
    /// The text; what is kept of it below `folder` is not written again.
    ///
    /// # Errors
    /// The data are shorter than a passage; the ensemble can't be reached or changed; files can't be written or are damaged.
    pub(super) async fn write(&self, ensemble: &RunningEnsemble, folder: &Path) -> anyhow::Result<Vec<u32>> {
        let prompts = self.prompts()?;
        let length = self.passage_tokens;
        let sizes = (PASSAGES * length, 0);
        let teacher = hex(description(ensemble)?.as_bytes());
        let teacher = teacher.get(..16).unwrap_or_default();
        let asked = format!("text {length} {} {teacher}", self.seed);
        let cache = Cache::open(folder, Manifest::new(&asked, &prompts, sizes, &ensemble.identity))?;
        let collecting = Collecting {
            ensemble,
            cache: &cache,
            tokens: &prompts,
            on_change: OnChange::Stop,
            otherwise: "",
            title: "writing",
        };
        let ask = |prompts: Vec<u32>, part: Part| self.continued(ensemble.clone(), prompts, part.index);
        let written = collecting.all(parts(prompts.len(), sizes.0, sizes.1), ask).await?;
        let vocabulary_size = ensemble.vocabulary.len();
        let mut text = Vec::with_capacity(2 * prompts.len());
        for part in written.parts {
            let (path, bytes) = cache.read(part.index)?;
            let read = decode(&bytes, vocabulary_size, 2 * part.tokens.len());
            text.extend(read.with_context(|| format!("{} is damaged; remove it", path.display()))?);
        }
        Ok(text)
    }

    /// All passages, one after the other.
    fn prompts(&self) -> anyhow::Result<Vec<u32>> {
        let (length, tokens) = (self.passage_tokens, self.data.len());
        let places = tokens.checked_sub(length).with_context(|| {
            format!("--data has {tokens} tokens, fewer than the {length} of a passage (--passage-tokens)")
        })? + 1;
        let passage = |number: usize| {
            let begin = place(self.seed, number as u64, places as u64) as usize;
            self.data.get(begin..begin + length).unwrap_or_default()
        };
        Ok((0..self.tokens / (2 * length)).flat_map(passage).copied().collect())
    }

    /// Passages of a part, each with what the ensemble writes after it.
    async fn continued(
        &self,
        ensemble: RunningEnsemble,
        prompts: Vec<u32>,
        part: usize,
    ) -> Result<Tensors, Unanswered> {
        let names = &ensemble.identity.names();
        let passages = prompts.chunks(self.passage_tokens).enumerate();
        let continued = passages.map(|(number, passage)| {
            let seed = self.seed.wrapping_mul(GOLDEN).wrapping_add((part * PASSAGES + number) as u64);
            let request = GenerateRequest {
                prompt: input_of(passage),
                max_tokens: Some(u32::try_from(self.passage_tokens).unwrap_or(u32::MAX)),
                sampling: Some(SamplingOptions { seed: Some(seed), ..SamplingOptions::default() }),
                fusion: Some(FusionOptions { allow_degraded: Some(false), ..FusionOptions::default() }),
                ..GenerateRequest::default()
            };
            let mut client = ensemble.client.clone();
            let ensemble = &ensemble;
            async move {
                let reply = client.complete(request).await.map_err(|status| {
                    let length = passage.len();
                    let what =
                        format!("after passages of {length} tokens (--passage-tokens) nothing is written");
                    match refused(ensemble, &status) {
                        Unanswered::Failed(error) => Unanswered::Failed(error.context(what)),
                        missing @ Unanswered::Missing(_) => missing,
                    }
                })?;
                let reply = reply.into_inner();
                let there = reply.participation.iter().flat_map(|found| &found.participants);
                all_there(names, &there.collect::<Vec<_>>())?;
                let written = reply.tokens.iter().map(|token| token.id);
                Ok::<_, Unanswered>(passage.iter().copied().chain(written).collect::<Vec<u32>>())
            }
        });
        let texts: Vec<Vec<u32>> = stream::iter(continued).buffered(AT_A_TIME).try_collect().await?;
        let text = texts.concat();
        Ok(Tensors::default().with("tokens", &[text.len()], &text))
    }
}

/// Where a passage begins, of so many places: the n-th point of a sequence that covers them evenly; another seed begins elsewhere
/// in it.
fn place(seed: u64, number: u64, places: u64) -> u64 {
    let point = number.wrapping_mul(GOLDEN).wrapping_add(seed.wrapping_mul(!GOLDEN));
    ((u128::from(point) * u128::from(places)) >> 64) as u64
}

/// The text of a part: at most so many tokens, all of the vocabulary.
pub(super) fn decode(bytes: &[u8], vocabulary_size: u32, most: usize) -> anyhow::Result<Vec<u32>> {
    let (shape, tokens) = list::<u32>(&SafeTensors::deserialize(bytes)?, "tokens")?;
    anyhow::ensure!(
        shape.len() == 1 && tokens.len() <= most,
        "its tokens have the shape {shape:?}; expected are at most {most}"
    );
    if let Some(token) = tokens.iter().find(|token| **token >= vocabulary_size) {
        anyhow::bail!("its token {token} is not in the vocabulary of {vocabulary_size}");
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(data: &[u32], tokens: usize, seed: u64) -> Vec<u32> {
        Synthetic { data, tokens, passage_tokens: 4, seed }.prompts().unwrap()
    }

    #[test]
    fn passages_are_from_everywhere_and_the_seed_s() {
        let data: Vec<u32> = (0..1000).collect();
        let passages = prompts(&data, 8 * 100 + 7, 3);
        assert_eq!(passages.len(), 4 * 100, "a passage that has no room is left out");
        assert!(passages.chunks(4).all(|passage| passage.windows(2).all(|pair| pair[1] == pair[0] + 1)));
        let mut begins: Vec<u32> = passages.chunks(4).map(|passage| passage[0]).collect();
        begins.sort_unstable();
        // A hundred of 997 places: no two next to each other, and no large hole.
        let holes = begins.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(holes.clone().min() >= Some(3) && holes.max() <= Some(20), "{begins:?}");
        assert_eq!(passages, prompts(&data, 800, 3));
        assert_ne!(passages, prompts(&data, 800, 4));
        assert_eq!(prompts(&data[..4], 16, 1), [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn a_text_too_short_for_a_passage_is_refused() {
        let error =
            Synthetic { data: &[1, 2, 3], tokens: 8, passage_tokens: 4, seed: 1 }.prompts().unwrap_err();
        assert_eq!(
            error.to_string(),
            "--data has 3 tokens, fewer than the 4 of a passage (--passage-tokens)"
        );
    }

    #[test]
    fn a_damaged_part_is_refused() {
        let bytes =
            |tokens: &[u32]| Tensors::default().with("tokens", &[tokens.len()], tokens).encode().unwrap();
        assert_eq!(decode(&bytes(&[1, 2]), 3, 2).unwrap(), [1, 2]);
        assert!(decode(&bytes(&[1, 3]), 3, 2).unwrap_err().to_string().contains("token 3 is not in"));
        assert!(decode(&bytes(&[1, 2, 2]), 3, 2).unwrap_err().to_string().contains("at most 2"));
        assert!(decode(b"", 3, 2).is_err());
    }
}
