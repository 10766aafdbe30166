//! A distribution that is bent before a token is chosen: repetition made less likely, tokens left out.
//!
//! Knows nothing about how a token is chosen, or why these tokens are bent.

use std::mem::take;

use super::distribution::{Distribution, Probabilities};

/// Where less than this share of the largest value is left, what is left is computed exactly: f32 holds too little of it.
const TOO_LITTLE: f32 = 1e-12;

/// How a distribution is bent. Its log-probabilities do not sum to one any more; only their differences matter to whoever
/// chooses.
#[derive(Clone, Copy, Debug)]
pub struct Adjustment<'a> {
    /// The log-probability of tokens that were there already is multiplied by this; positive. Of log-probabilities, as
    /// Keskar et al. 2019 (CTRL, arXiv:1909.05858) do it of logits: above 1 they become less likely whatever the model's scale.
    pub repetition_penalty: f64,
    /// Those tokens, ascending.
    pub seen: &'a [u32],
    /// Nothing but these may be chosen, where there are any; ascending.
    pub allowed: Option<&'a [u32]>,
    /// These may not; ascending.
    pub forbidden: &'a [u32],
}

impl Adjustment<'_> {
    /// What becomes of a token's log-probability.
    pub fn bend(&self, id: u32, log_prob: f64) -> f64 {
        if self.excludes(id) {
            return f64::NEG_INFINITY;
        }
        if self.seen.binary_search(&id).is_ok() { log_prob * self.repetition_penalty } else { log_prob }
    }

    fn excludes(&self, id: u32) -> bool {
        let is_allowed = self.allowed.is_none_or(|allowed| allowed.binary_search(&id).is_ok());
        !is_allowed || self.forbidden.binary_search(&id).is_ok()
    }

    /// Writes what the values become; gives the largest of them.
    fn write(&self, of: &Probabilities<'_>, values: &mut Vec<f32>) -> f32 {
        if let Some(allowed) = self.allowed {
            return self.write_exactly(of, allowed.iter().copied(), values);
        }
        values.clear();
        values.extend_from_slice(of.values());
        let mut set = |id: u32, value: f32| {
            if let Some(place) = values.get_mut(id as usize) {
                *place = value;
            }
        };
        let likeliest = of.argmax();
        let (log_prob, scale) = (of.log_prob(likeliest), of.largest());
        for id in self.seen {
            let bent = self.repetition_penalty * of.log_prob(*id);
            set(*id, (bent - log_prob).exp() as f32 * scale);
        }
        self.forbidden.iter().for_each(|id| set(*id, 0.0));
        let largest = values.iter().copied().fold(0.0, f32::max);
        if largest >= TOO_LITTLE * scale {
            return largest;
        }
        self.write_exactly(of, 0..u32::try_from(of.values().len()).unwrap_or(u32::MAX), values)
    }

    /// The same from exact log-probabilities, for these tokens; the others have none.
    fn write_exactly(
        &self,
        of: &Probabilities<'_>,
        ids: impl Iterator<Item = u32> + Clone,
        values: &mut Vec<f32>,
    ) -> f32 {
        values.clear();
        values.resize(of.values().len(), 0.0);
        let bent = |id: u32| self.bend(id, of.log_prob(id));
        let largest = ids.clone().map(bent).fold(f64::NEG_INFINITY, f64::max);
        for id in ids {
            if let Some(value) = values.get_mut(id as usize) {
                *value = (bent(id) - largest).exp() as f32;
            }
        }
        1.0
    }
}

impl Distribution<'_> {
    /// Has `work` choose from the distribution as it is bent.
    ///
    /// ```
    /// use chorus_coordinator::fusion::{Adjustment, Fused, Fusion, Norm, Row, Scratch, fuse};
    ///
    /// let logits = [0.2_f32.ln(), 0.7_f32.ln(), 0.1_f32.ln()];
    /// let norm = Norm { largest: 0.7_f32.ln(), log_sum: -0.7_f64.ln() };
    /// let (rows, scratch) = ([(1.0, Row::new(&logits, norm, 3)?)], &mut Scratch::default());
    /// let Fused::Distribution(mut distribution) = fuse(&Fusion::default(), &rows, scratch)? else { unreachable!() };
    /// let adjustment = |penalty, forbidden| Adjustment {
    ///     repetition_penalty: penalty, seen: &[1], allowed: None, forbidden
    /// };
    /// let mut likeliest = |adjustment| distribution.adjusted(&adjustment, |bent| bent.argmax());
    /// assert_eq!(likeliest(adjustment(1.0, &[])), 1);
    /// assert_eq!(likeliest(adjustment(1.0, &[1])), 0);
    /// assert_eq!(likeliest(adjustment(5.0, &[])), 0, "0.7 to the fifth is 0.168");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adjusted<T>(
        &mut self,
        adjustment: &Adjustment<'_>,
        work: impl FnOnce(&mut Distribution<'_>) -> T,
    ) -> T {
        let (probabilities, spare) = self.parts();
        let mut values = take(&mut spare.adjusted);
        let largest = adjustment.write(&probabilities, &mut values);
        let made = work(&mut Distribution::bent(&probabilities, adjustment, &values, largest, spare));
        spare.adjusted = values;
        made
    }
}
