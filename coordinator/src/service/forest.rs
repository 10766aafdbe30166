//! What the members hold many sequences for that have one context: what these begin with alike is read once.
//!
//! A session stands at the end of every run of tokens that several sequences share, and is forked for each of them. Knows
//! nothing about what the numbers are for. A member that is lost on the way stays out, and nothing of it remains.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chorus_proto::v1::{MissingMember, Participation};
use chorus_text::Vocabulary;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tonic::Status;

use super::call::Call;
use super::opening::Opening;
use super::prompt::Prompt;
use super::score_columns::{Columns, FusedToken};
use super::sound::make_of_rows;
use crate::ensemble::{Ensemble, NUMBERS_OF_A_LISTED_ONE, fuse_status, step_status};
use crate::plan::{Ask, Plan, pieces};
use crate::request::Fusing;
use crate::session::{EnsembleSession, Rejoin, StepAnswers, StepError};
use crate::token_trie::TokenTrie;

/// Runs of one request that are read at a time: enough to fill a worker's forwards.
pub(super) const AT_A_TIME: usize = 32;

/// What is to be read.
pub(super) struct Forest<'a> {
    pub(super) ensemble: &'a Arc<Ensemble>,
    pub(super) vocabulary: &'a Vocabulary,
    pub(super) call: Call,
    pub(super) fusing: &'a Arc<Fusing>,
    pub(super) plan: Plan,
    pub(super) sequences: &'a [Vec<u32>],
    pub(super) trie: &'a TokenTrie,
}

/// What was said of all sequences after one context.
pub(super) struct Said {
    /// By node of the tree.
    nodes: Vec<Sums>,
    /// Who said it, by their places in member order.
    pub(super) participants: Vec<usize>,
    pub(super) participation: Participation,
    /// Tokens of the context that nobody had to read.
    pub(super) cached_tokens: usize,
}

/// What was read after one context.
struct Pass {
    /// By node of the tree.
    nodes: Vec<(Columns, Participation)>,
    /// Tokens of the context that nobody had to read.
    cached_tokens: usize,
}

/// The log-probabilities of a sequence's tokens, summed up.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    /// Of the fused distributions.
    pub(super) fused: f64,
    /// Of each participant.
    pub(super) members: Vec<f64>,
}

/// A run that was read.
struct Read {
    node: usize,
    session: EnsembleSession,
    columns: Columns,
    participation: Participation,
}

/// A session whose run is read, and how many runs after it are still to begin.
struct Parent {
    session: EnsembleSession,
    waiting: usize,
}

impl Forest<'_> {
    /// Reads everything after each of these contexts, always by the same members.
    ///
    /// # Errors
    /// The members can't go on.
    pub(super) async fn read(&self, contexts: &[&[u32]]) -> Result<Vec<Said>, Status> {
        let mut barred = self.down();
        // What a second reading finds is what the first one has read.
        let mut cached: Option<Vec<usize>> = None;
        loop {
            let mut passes = Vec::new();
            for context in contexts {
                passes.push(self.pass(context, &barred).await?);
            }
            let of_first =
                cached.get_or_insert_with(|| passes.iter().map(|pass| pass.cached_tokens).collect());
            passes.iter_mut().zip(of_first).for_each(|(pass, cached)| pass.cached_tokens = *cached);
            // Whoever is missing from anything.
            let nodes = || passes.iter().flat_map(|pass| &pass.nodes);
            let lost = nodes().flat_map(|(_, participation)| &participation.missing);
            let mut absent = BTreeMap::new();
            for missing in lost {
                let place = self.ensemble.names.iter().position(|name| *name == missing.name);
                absent.extend(place.map(|place| (place, missing.reason.clone())));
            }
            // Numbers that are fused already hold those who were lost later: all is read again without them.
            let are_fused = nodes().any(|(columns, _)| !columns.fused.is_empty());
            if are_fused && absent.keys().any(|place| !barred.contains_key(place)) {
                barred = absent;
                continue;
            }
            return passes.into_iter().map(|pass| self.sum(pass, &absent)).collect();
        }
    }

    /// Every node's numbers, by those who were there.
    async fn pass(&self, context: &[u32], barred: &BTreeMap<usize, String>) -> Result<Pass, Status> {
        let (mut session, mut prompt) = self.begin(context, barred);
        if !context.is_empty() {
            let rest = prompt.read_to_parting(&mut session, context).await?;
            session.step(rest, &Ask::Nothing).await.map_err(|error| step_status(&error))?;
            prompt.keep(&mut session);
        }
        let mut nodes: Vec<Option<(Columns, Participation)>> = (0..self.trie.len()).map(|_| None).collect();
        let mut parents: HashMap<Option<usize>, Parent> = HashMap::new();
        // The last ones begin first: depth-first.
        let mut waiting: Vec<usize> = Vec::new();
        self.go_on(None, session, &mut parents, &mut waiting);
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < AT_A_TIME
                && let Some(node) = waiting.pop()
                && let Some(session) = take(&mut parents, self.trie.before(node))
            {
                reading.push(self.read_run(node, session));
            }
            let Some(read) = reading.next().await else {
                break;
            };
            let Read { node, session, columns, participation } = read?;
            nodes[node] = Some((columns, participation));
            self.go_on(Some(node), session, &mut parents, &mut waiting);
        }
        let cached_tokens = prompt.cached_tokens() as usize;
        Ok(Pass { nodes: nodes.into_iter().flatten().collect(), cached_tokens })
    }

    /// Those who can't begin at all, with the reasons.
    fn down(&self) -> BTreeMap<usize, String> {
        let members = self.ensemble.roster.members.iter().enumerate();
        let down = members.filter_map(|(place, member)| {
            let presence = member.presence();
            (!presence.is_up()).then(|| (place, presence.reason().to_owned()))
        });
        down.collect()
    }

    fn begin(&self, context: &[u32], barred: &BTreeMap<usize, String>) -> (EnsembleSession, Prompt) {
        let Self { ensemble, vocabulary, call, fusing, plan, .. } = *self;
        let opening = Opening { ensemble, vocabulary, call, fusing, plan, rejoin: Rejoin::Never };
        opening.begin_with_prompt(context, barred)
    }

    /// What comes after a run waits for its turn.
    fn go_on(
        &self,
        node: Option<usize>,
        session: EnsembleSession,
        parents: &mut HashMap<Option<usize>, Parent>,
        waiting: &mut Vec<usize>,
    ) {
        let next = self.trie.after(node);
        if !next.is_empty() {
            parents.insert(node, Parent { session, waiting: next.len() });
            // The first one, with the fewest nodes below it, is on top.
            waiting.extend(next.iter().rev());
        }
    }

    async fn read_run(&self, node: usize, mut session: EnsembleSession) -> Result<Read, Status> {
        let run = self.trie.run(node, self.sequences);
        let vocabulary_size = self.vocabulary.len() as usize;
        let ask = self.plan.each();
        let most = session.max_feed_tokens(&ask);
        let (mut columns, mut participation) = (Columns::default(), Participation::default());
        for piece in pieces(&ask, run.len(), vocabulary_size, most) {
            let tokens: Arc<[u32]> = run.get(piece).unwrap_or_default().into();
            let answers = session.step(&tokens, &ask).await.map_err(|error| step_status(&error))?;
            let numbers = ask.answer_bytes(tokens.len(), vocabulary_size) / size_of::<f32>();
            let each = if matches!(self.plan, Plan::Dense(_)) { 1 } else { NUMBERS_OF_A_LISTED_ONE };
            let (numbers, fusing) = (numbers * answers.answers.len() * each, Arc::clone(self.fusing));
            let read = move |answers: &StepAnswers| Columns::read(&fusing, &tokens, vocabulary_size, answers);
            let (next, answers) = make_of_rows(&mut session, answers, numbers, read).await?;
            participation = answers.participation;
            columns.append(next);
        }
        Ok(Read { node, session, columns, participation })
    }

    fn sum(
        &self,
        Pass { nodes, cached_tokens }: Pass,
        absent: &BTreeMap<usize, String>,
    ) -> Result<Said, Status> {
        let mut sums = Vec::with_capacity(nodes.len());
        let (mut participants, mut participation) = (Vec::new(), Participation::default());
        for (mut columns, of_node) in nodes {
            columns.leave_out(absent);
            columns.finish(self.fusing).map_err(|error| fuse_status(error, &of_node))?;
            participants = columns.participants();
            participation = of_node;
            let fused = columns.fused.iter().filter_map(FusedToken::log_prob).sum();
            sums.push(Sums {
                fused,
                members: columns.members.values().map(|said| said.iter().sum()).collect(),
            });
        }
        // Where members were lost at some nodes only, those of the last one are not all.
        let names = &self.ensemble.names;
        participation.participants =
            participants.iter().filter_map(|place| names.get(*place).cloned()).collect();
        participation.missing = absent
            .iter()
            .filter_map(|(place, reason)| {
                let name = names.get(*place)?.clone();
                Some(MissingMember { name, reason: reason.clone(), ..MissingMember::default() })
            })
            .collect();
        let quorum = self.ensemble.roster.check_quorum(&participation);
        quorum.map_err(|error| step_status(&StepError::BelowQuorum(error)))?;
        Ok(Said { nodes: sums, participants, participation, cached_tokens })
    }
}

impl Said {
    /// Of a sequence.
    pub(super) fn of(&self, sequence: usize, trie: &TokenTrie) -> Sums {
        let mut sums = Sums { fused: 0.0, members: vec![0.0; self.participants.len()] };
        // From the beginning on, as one would read it.
        let mut way: Vec<usize> = trie.way(sequence).collect();
        way.reverse();
        for node in way.into_iter().filter_map(|node| self.nodes.get(node)) {
            sums.fused += node.fused;
            sums.members.iter_mut().zip(&node.members).for_each(|(sum, more)| *sum += more);
        }
        sums
    }
}

/// A session that stands where the parent does. The last one takes the parent's own.
fn take(parents: &mut HashMap<Option<usize>, Parent>, node: Option<usize>) -> Option<EnsembleSession> {
    let parent = parents.get_mut(&node)?;
    parent.waiting -= 1;
    if parent.waiting > 0 {
        return Some(parent.session.fork());
    }
    Some(parents.remove(&node)?.session)
}
