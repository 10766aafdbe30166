//! [`TokenTrie`]: what sequences of tokens begin with alike, so that it is read once.
//!
//! Pure. Knows nothing about what is read or said of a sequence.

use std::ops::Range;

/// Sequences as a radix tree. A node is a run of tokens that all sequences below it have next; nodes come after their parents.
#[derive(Debug, Default, PartialEq)]
pub struct TokenTrie {
    nodes: Vec<Node>,
    /// The nodes of the first runs.
    roots: Vec<usize>,
    /// Where each sequence ends; none where it is empty.
    ends: Vec<Option<usize>>,
}

#[derive(Debug, PartialEq)]
struct Node {
    parent: Option<usize>,
    /// Of which sequence the run is a part, and which part.
    sequence: usize,
    run: Range<usize>,
    /// Those with few nodes below them come first: whoever goes depth-first and gives the last child what the parent has
    /// holds on to no more than log2(nodes) parents at a time.
    children: Vec<usize>,
}

impl TokenTrie {
    /// ```
    /// use chorus_coordinator::token_trie::TokenTrie;
    ///
    /// let trie = TokenTrie::new(&[vec![1, 2, 3], vec![1, 2, 4, 5], vec![1, 2]]);
    /// assert_eq!((trie.len(), trie.tokens()), (3, 5));
    /// ```
    pub fn new(sequences: &[Vec<u32>]) -> Self {
        let mut order: Vec<usize> =
            (0..sequences.len()).filter(|index| !sequences[*index].is_empty()).collect();
        order.sort_by(|one, other| sequences[*one].cmp(&sequences[*other]));
        let mut trie = Self { ends: vec![None; sequences.len()], ..Self::default() };
        // In order, what two neighbours have in common is what any two between which they stand have, at least. Each round
        // takes sequences that agree up to a length, and cuts them into those that go on alike.
        let mut groups = vec![(None, 0, order.as_slice())];
        while let Some((parent, length, group)) = groups.pop() {
            for group in
                group.chunk_by(|one, other| sequences[*one].get(length) == sequences[*other].get(length))
            {
                let (Some(first), Some(last)) = (group.first(), group.last()) else {
                    continue;
                };
                let (first, last) = (&sequences[*first], &sequences[*last]);
                if first.len() == length {
                    // They end where the run before ended; that they do was noted there.
                    continue;
                }
                let alike =
                    first.iter().zip(last).skip(length).take_while(|(one, other)| one == other).count();
                let node = trie.nodes.len();
                let run = length..length + alike;
                trie.nodes.push(Node { parent, sequence: group[0], run: run.clone(), children: Vec::new() });
                let siblings = match parent {
                    Some(parent) => &mut trie.nodes[parent].children,
                    None => &mut trie.roots,
                };
                siblings.push(node);
                for index in group.iter().filter(|index| sequences[**index].len() == run.end) {
                    trie.ends[*index] = Some(node);
                }
                groups.push((Some(node), run.end, group));
            }
        }
        trie.put_small_ones_first();
        trie
    }

    fn put_small_ones_first(&mut self) {
        let mut below = vec![1_usize; self.nodes.len()];
        for node in (0..self.nodes.len()).rev() {
            if let Some(parent) = self.nodes[node].parent {
                below[parent] += below[node];
            }
        }
        for node in &mut self.nodes {
            node.children.sort_by_key(|child| below[*child]);
        }
        self.roots.sort_by_key(|root| below[*root]);
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The tokens of all runs.
    pub fn tokens(&self) -> usize {
        self.nodes.iter().map(|node| node.run.len()).sum()
    }

    /// The runs after a node's, or the first ones.
    pub fn after(&self, node: Option<usize>) -> &[usize] {
        match node {
            Some(node) => self.nodes.get(node).map_or(&[], |node| node.children.as_slice()),
            None => &self.roots,
        }
    }

    /// The node before.
    pub fn before(&self, node: usize) -> Option<usize> {
        self.nodes.get(node)?.parent
    }

    /// A node's tokens, of the sequences that the tree was made of.
    pub fn run<'a>(&self, node: usize, sequences: &'a [Vec<u32>]) -> &'a [u32] {
        let run = self.nodes.get(node).and_then(|node| sequences.get(node.sequence)?.get(node.run.clone()));
        run.unwrap_or_default()
    }

    /// The last node of a sequence; none where it is empty.
    pub fn end(&self, sequence: usize) -> Option<usize> {
        self.ends.get(sequence).copied().flatten()
    }

    /// The nodes of a sequence, the last one first.
    pub fn way(&self, sequence: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.end(sequence), |node| self.before(*node))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn read(trie: &TokenTrie, sequence: usize, sequences: &[Vec<u32>]) -> Vec<u32> {
        let mut runs: Vec<&[u32]> = trie.way(sequence).map(|node| trie.run(node, sequences)).collect();
        runs.reverse();
        runs.concat()
    }

    proptest! {
        #[test]
        fn every_sequence_is_there_and_every_beginning_once(
            sequences in prop::collection::vec(prop::collection::vec(0..3_u32, 0..7), 0..30),
        ) {
            let trie = TokenTrie::new(&sequences);
            for (index, sequence) in sequences.iter().enumerate() {
                prop_assert_eq!(&read(&trie, index, &sequences), sequence);
            }
            let beginnings: BTreeSet<&[u32]> =
                sequences.iter().flat_map(|tokens| (1..=tokens.len()).map(|end| &tokens[..end])).collect();
            prop_assert_eq!(trie.tokens(), beginnings.len());
            prop_assert!((0..trie.len()).all(|node| trie.before(node).is_none_or(|parent| parent < node)));
            let all: usize = (0..trie.len()).map(|node| trie.after(Some(node)).len()).sum();
            prop_assert_eq!(all + trie.after(None).len(), trie.len());
        }

        #[test]
        fn depth_first_holds_on_to_few_parents(
            sequences in prop::collection::vec(prop::collection::vec(0..3_u32, 1..9), 1..200),
        ) {
            let trie = TokenTrie::new(&sequences);
            // A parent is held until its last child begins.
            let mut most = 0;
            let mut stack = vec![(None, 0_usize)];
            let mut held = 0_usize;
            while let Some((node, place)) = stack.pop() {
                let children = trie.after(node);
                let Some(child) = children.get(place) else { continue };
                let is_last = place + 1 == children.len();
                if !is_last {
                    stack.push((node, place + 1));
                }
                held = stack.len();
                most = most.max(held);
                stack.push((Some(*child), 0));
            }
            prop_assert!(held == 0 || most > 0);
            prop_assert!(most <= 1 + trie.len().ilog2() as usize + 1, "{} of {}", most, trie.len());
        }
    }

    #[test]
    fn a_long_chain_is_built_without_recursion() {
        let sequences: Vec<Vec<u32>> = (1..3000).map(|length| vec![7; length]).collect();
        let trie = TokenTrie::new(&sequences);
        assert_eq!((trie.len(), trie.tokens()), (2999, 2999));
    }
}
