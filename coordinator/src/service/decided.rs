//! Whether a winner stands although some members are awaited, whoever of them comes and whatever they say.
//!
//! Knows nothing about how the members' answers are fused.

use crate::fusion::Ahead;
use crate::weights::{Weighting, Weights};

/// Where the weights depend on who takes part, each set that may come to be is looked at, up to that of so many members that are
/// awaited.
const MOST_AWAITED: usize = 3;

/// `ahead` says, with given weights, who leads by those that answered. Members are given by their places, ascending.
pub(super) fn is_decided(
    weighting: &Weighting,
    answered: &[usize],
    awaited: &[usize],
    ahead: impl Fn(&Weights) -> Option<Ahead>,
) -> bool {
    let certain = |absent: &[usize]| {
        let all: Vec<usize> = merged(answered, awaited, absent);
        let coming: Vec<usize> = awaited.iter().copied().filter(|member| !absent.contains(member)).collect();
        let weights = weighting.among(&all);
        let ahead = ahead(&weights)?;
        let decisive = ahead.margin.is_decisive(&weights.of_all(answered), &weights.of_all(&coming));
        decisive.then_some(ahead.id)
    };
    if !weighting.depends_on_participants() {
        return certain(&[]).is_some();
    }
    if awaited.len() > MOST_AWAITED {
        return false;
    }
    let Some(winner) = certain(&[]) else {
        return false;
    };
    (1..1_usize << awaited.len()).all(|set| {
        let absent = awaited.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1);
        let absent: Vec<usize> = absent.map(|(_, member)| *member).collect();
        certain(&absent) == Some(winner)
    })
}

fn merged(answered: &[usize], awaited: &[usize], absent: &[usize]) -> Vec<usize> {
    let mut all: Vec<usize> =
        answered.iter().chain(awaited).copied().filter(|member| !absent.contains(member)).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusion::Rule;
    use crate::fusion::certificate::Margin;
    use crate::weights::{Learned, LearnedWeights};

    fn learned(of_both: &str, of_alto: &str) -> Weighting {
        let text = format!(
            "format = 1\nvocabulary = 'v'\nmembers = [{{name = 'alto', model = ''}}, {{name = 'bass', model = ''}}, \
             {{name = 'cello', model = ''}}]\n[rules.weighted_average]\nmethod = 'em'\ntokens = 7\nsets = [\n\
             {{members = ['alto', 'bass', 'cello'], weights = {of_both}}},\n\
             {{members = ['alto', 'bass'], weights = {of_alto}}}]"
        );
        let names = ["alto", "bass", "cello"].map(str::to_owned);
        let learned = Learned::new(&LearnedWeights::from_toml(&text).unwrap(), &names).unwrap();
        Weighting::learned(learned.rule(Rule::WeightedAverage).unwrap().clone(), Weights::equal(3))
    }

    /// Alto is sure of token 7 and bass of token 8.
    fn ahead(weights: &Weights) -> Option<Ahead> {
        let [alto, bass] = [weights.of(0), weights.of(1)];
        let (id, lead) = if alto > bass { (7, alto - bass) } else { (8, bass - alto) };
        Some(Ahead { id, margin: Margin::Probability(lead / (alto + bass)) })
    }

    #[test]
    fn fixed_weights_are_looked_at_once() {
        let weights = Weighting::fixed(Weights::new([("alto", 5.0), ("bass", 1.0), ("cello", 1.0)]).unwrap());
        assert!(is_decided(&weights, &[0, 1], &[2], ahead));
        let weights = Weighting::fixed(Weights::new([("alto", 5.0), ("bass", 1.0), ("cello", 4.5)]).unwrap());
        assert!(!is_decided(&weights, &[0, 1], &[2], ahead));
    }

    #[test]
    fn learned_ones_have_to_agree_whether_or_not_the_others_come() {
        let decided = |of_all, of_both| is_decided(&learned(of_all, of_both), &[0, 1], &[2], ahead);
        assert!(decided("[0.7, 0.2, 0.1]", "[0.8, 0.2]"));
        assert!(!decided("[0.7, 0.2, 0.1]", "[0.2, 0.8]"), "without cello another token wins");
        assert!(!decided("[0.5, 0.2, 0.3]", "[0.8, 0.2]"), "cello may make up for it");
    }
}
