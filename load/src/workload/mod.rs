//! What is asked: a sequence of calls, the same for the same seed. Knows nothing about when they are made or of whom.

mod lengths;
mod mix;
mod prompts;

use std::sync::Arc;

use chorus_proto::v1::{
    FusionOptions, GenerateRequest, Input, SamplingOptions, ScoreRequest, TokenIds, input,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

pub use lengths::{Lengths, LengthsError};
pub use mix::{Mix, MixError};
pub use prompts::{Prompt, PromptsError, parse_prompts};

/// The two kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `Generate` or `Complete`: a prompt is continued.
    Generate,
    /// `Score`: the log-probability of a text.
    Score,
}

/// One call, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Continue a prompt, token by token.
    Generate(GenerateRequest),
    /// Continue a prompt and answer once.
    Complete(GenerateRequest),
    /// Score a text.
    Score(ScoreRequest),
}

/// Where the inputs of the calls come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Token ids, uniform over a vocabulary of this many: every length is exact, and any ensemble takes them.
    Random {
        /// Number of tokens in the vocabulary, at least 1.
        vocabulary_size: u32,
    },
    /// Texts, in this order, from the first again after the last. Not empty.
    Replayed(Arc<[Prompt]>),
}

/// How the tokens of a generation come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// One by one, as they are chosen.
    #[default]
    Streamed,
    /// All in one message, so that there is no first one and no time between two.
    Whole,
}

/// What is asked of an ensemble, as a distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// How often each kind of call comes. A replayed prompt that says what it is for overrules it.
    pub mix: Mix,
    /// What is continued and scored.
    pub inputs: Inputs,
    /// Tokens of a random prompt.
    pub prompt_tokens: Lengths,
    /// Tokens that are generated, unless a replayed prompt says so.
    pub max_tokens: Lengths,
    /// How they come.
    pub delivery: Delivery,
    /// Tokens of a random text that is scored.
    pub score_tokens: Lengths,
    /// How tokens are chosen; absent is the server's default. Every call gets a seed of its own.
    pub sampling: Option<SamplingOptions>,
    /// The rule and its options; absent is as the ensemble is configured.
    pub fusion: Option<FusionOptions>,
    /// Decides everything that is random here.
    pub seed: u64,
}

/// The calls of one of several threads, without end.
#[derive(Debug, Clone)]
pub struct Calls {
    workload: Arc<Workload>,
    random: ChaCha8Rng,
    next_prompt: usize,
    threads: usize,
}

impl Call {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Generate(_) | Self::Complete(_) => Kind::Generate,
            Self::Score(_) => Kind::Score,
        }
    }
}

impl Calls {
    /// The calls of `thread` (from 0) of `threads` (at least 1): another random sequence for each, and every
    /// `threads`th replayed prompt.
    #[must_use]
    pub fn new(workload: Arc<Workload>, thread: usize, threads: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(workload.seed);
        random.set_stream(thread as u64);
        Self { workload, random, next_prompt: thread, threads }
    }

    fn random_input(&mut self, vocabulary_size: u32, lengths: Lengths) -> Input {
        let length = lengths.draw(&mut self.random);
        let ids = (0..length).map(|_| i64::from(self.random.random_range(0..vocabulary_size.max(1))));
        Input { input: Some(input::Input::Tokens(TokenIds { ids: ids.collect() })) }
    }

    fn generate(&mut self, prompt: Input, max_tokens: Option<u32>) -> Call {
        let max_tokens = max_tokens.unwrap_or_else(|| self.workload.max_tokens.draw(&mut self.random));
        // Below 2^53, as a server would choose it.
        let seed = self.random.random::<u64>() >> 11;
        let sampling =
            self.workload.sampling.clone().map(|options| SamplingOptions { seed: Some(seed), ..options });
        let request = GenerateRequest {
            prompt: Some(prompt),
            max_tokens: Some(max_tokens),
            stop: Vec::new(),
            sampling,
            fusion: self.workload.fusion.clone(),
            ..GenerateRequest::default()
        };
        match self.workload.delivery {
            Delivery::Streamed => Call::Generate(request),
            Delivery::Whole => Call::Complete(request),
        }
    }

    fn score(&self, input: Input) -> Call {
        let fusion = self.workload.fusion.clone();
        Call::Score(ScoreRequest { input: Some(input), fusion, per_token: false })
    }

    fn replayed(&mut self, prompt: &Prompt) -> Call {
        let input = |text: &str| Input { input: Some(input::Input::Text(text.to_owned())) };
        match prompt {
            Prompt::Generate { text, max_tokens } => self.generate(input(text), *max_tokens),
            Prompt::Score { text } => self.score(input(text)),
            Prompt::Any { text } => match self.workload.mix.draw(&mut self.random) {
                Kind::Generate => self.generate(input(text), None),
                Kind::Score => self.score(input(text)),
            },
        }
    }
}

impl Iterator for Calls {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        let workload = Arc::clone(&self.workload);
        match &workload.inputs {
            Inputs::Random { vocabulary_size } => match workload.mix.draw(&mut self.random) {
                Kind::Generate => {
                    let prompt = self.random_input(*vocabulary_size, workload.prompt_tokens);
                    Some(self.generate(prompt, None))
                }
                Kind::Score => {
                    let input = self.random_input(*vocabulary_size, workload.score_tokens);
                    Some(self.score(input))
                }
            },
            Inputs::Replayed(prompts) => {
                let prompt = prompts.get(self.next_prompt % prompts.len().max(1))?;
                self.next_prompt = self.next_prompt.wrapping_add(self.threads);
                Some(self.replayed(prompt))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(inputs: Inputs) -> Arc<Workload> {
        Arc::new(Workload {
            mix: "generate=3,score=1".parse().unwrap(),
            inputs,
            prompt_tokens: "2..5".parse().unwrap(),
            max_tokens: "7".parse().unwrap(),
            delivery: Delivery::default(),
            score_tokens: "9".parse().unwrap(),
            sampling: Some(SamplingOptions { temperature: Some(0.5), ..SamplingOptions::default() }),
            fusion: None,
            seed: 11,
        })
    }

    fn ids(input: Option<Input>) -> Vec<i64> {
        match input.and_then(|input| input.input) {
            Some(input::Input::Tokens(tokens)) => tokens.ids,
            other => panic!("ids, not {other:?}"),
        }
    }

    #[test]
    fn random_calls_have_the_mix_the_lengths_and_the_vocabulary() {
        let workload = workload(Inputs::Random { vocabulary_size: 4 });
        let (mut generated, mut lengths) = (0, Vec::new());
        for call in Calls::new(workload, 0, 1).take(4000) {
            let ids = match call {
                Call::Generate(request) | Call::Complete(request) => {
                    generated += 1;
                    assert_eq!(request.max_tokens, Some(7));
                    let sampling = request.sampling.unwrap();
                    assert!(sampling.temperature == Some(0.5) && sampling.seed.unwrap() < 1 << 53);
                    let ids = ids(request.prompt);
                    lengths.push(ids.len());
                    ids
                }
                Call::Score(request) => {
                    let ids = ids(request.input);
                    assert_eq!(ids.len(), 9);
                    ids
                }
            };
            assert!(ids.iter().all(|id| (0..4).contains(id)));
        }
        assert!((2850..3150).contains(&generated), "{generated} of 4000 where three of four are expected");
        lengths.sort_unstable();
        lengths.dedup();
        assert_eq!(lengths, [2, 3, 4, 5]);
    }

    #[test]
    fn a_seed_gives_its_calls_again_and_threads_have_different_ones() {
        let workload = workload(Inputs::Random { vocabulary_size: 1000 });
        let calls = |thread| Calls::new(Arc::clone(&workload), thread, 2).take(20).collect::<Vec<_>>();
        assert_eq!(calls(0), calls(0));
        assert_ne!(calls(0), calls(1));
    }

    #[test]
    fn a_delivery_changes_how_generations_are_asked_for_and_nothing_else() {
        let streamed = workload(Inputs::Random { vocabulary_size: 9 });
        let whole = Arc::new(Workload { delivery: Delivery::Whole, ..(*streamed).clone() });
        let pairs = Calls::new(streamed, 0, 1).zip(Calls::new(whole, 0, 1)).take(50);
        let same = |pair: &(Call, Call)| match pair {
            (Call::Generate(one), Call::Complete(other)) => one == other,
            (Call::Score(one), Call::Score(other)) => one == other,
            _ => false,
        };
        assert!(pairs.into_iter().all(|pair| same(&pair)));
    }

    #[test]
    fn replayed_prompts_come_in_order_and_are_shared_among_threads() {
        let text = "one\n{\"score\": \"two\"}\n{\"prompt\": \"three\", \"max_tokens\": 2}\n";
        let prompts = parse_prompts(text).unwrap();
        let only_generate = Workload {
            mix: "generate".parse().unwrap(),
            ..(*workload(Inputs::Replayed(prompts.into()))).clone()
        };
        let shared = Arc::new(only_generate);
        let texts = |thread| {
            let calls = Calls::new(Arc::clone(&shared), thread, 2).take(3);
            let input = |call| match call {
                Call::Generate(request) | Call::Complete(request) => {
                    (request.prompt.unwrap(), request.max_tokens)
                }
                Call::Score(request) => (request.input.unwrap(), None),
            };
            let text = |input: Input| match input.input {
                Some(input::Input::Text(text)) => text,
                other => panic!("a text, not {other:?}"),
            };
            calls.map(input).map(|(input, max)| (text(input), max)).collect::<Vec<_>>()
        };
        let own = |text: &str, max| (text.to_owned(), max);
        assert_eq!(texts(0), [own("one", Some(7)), own("three", Some(2)), own("two", None)]);
        assert_eq!(texts(1), [own("two", None), own("one", Some(7)), own("three", Some(2))]);
    }
}
