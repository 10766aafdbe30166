//! The cross entropy of one row of logits with a teacher's distribution, and its gradient.
//! Knows nothing about tensors, batches or threads.
//!
//! With the logits z, the temperature T, s = z / T and q = softmax(s), the loss L beside a teacher's distribution p is
//! (Hinton, Vinyals and Dean 2015)
//!
//! - where p is whole: L = -Σ p_w ln q_w, with dL/ds_w = q_w - p_w;
//! - where only a list K of tokens is known, and the mass r = 1 - Σ_{w∈K} p_w of all others: the cross entropy of
//!   the partition of the vocabulary into each w ∈ K by itself and the rest together, of which the student says
//!   q_R = Σ_{w∉K} q_w:
//!
//!   L = -Σ_{w∈K} p_w ln q_w - r ln q_R.
//!
//! Let A = ln Σ exp(s_w) over all tokens and B the same over those that are not listed, so that ln q_w = s_w - A and
//! ln q_R = B - A. Since Σ_{w∈K} p_w + r = 1, L = A - Σ_{w∈K} p_w s_w - r B, and with dA/ds_w = q_w and
//! dB/ds_w = exp(s_w - B) = q_w / q_R for the tokens that are not listed:
//!
//! - dL/ds_w = q_w - p_w for w ∈ K,
//! - dL/ds_w = q_w (1 - r / q_R) = exp(s_w - B) (q_R - r) for w ∉ K.
//!
//! In the last form nothing is divided, so that nothing is lost where q_R or r is nearly 0. What the rest has together is
//! learned, and how it is shared out is left to the student. L less the entropy of the teacher's partition is the
//! Kullback-Leibler divergence of the two partitions: at most that of the whole distributions (the data processing
//! inequality), and 0 where the student has the teacher's masses.

use chorus_simd::{instructions, log_sum_exp};
use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::loss::ScaledSoftmax;
use super::teacher::TargetRow;

/// The logarithms of sums of exponentials, which the gradient needs of the loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SoftNorms {
    /// A, of all s.
    all: f64,
    /// B, of the s that are not listed; negative infinity where there are none.
    rest: f64,
}

/// Room for V probabilities, used again for row after row.
pub(crate) type Probabilities = Vec<f32>;

/// L. `scaled` is s, and is lost.
pub(crate) fn soft_loss(
    scaled: &mut [f32],
    teacher: TargetRow<'_>,
    room: &mut Probabilities,
) -> (f64, SoftNorms) {
    match teacher {
        TargetRow::List { ids, probabilities } => list_loss(scaled, ids, probabilities),
        TargetRow::Whole(probabilities) => {
            let mass = expand(probabilities, room);
            let all = log_sum_exp(scaled);
            let products = room.iter().zip(&*scaled).map(|(&p, &s)| f64::from(p) * f64::from(s));
            (mass * all - products.sum::<f64>(), SoftNorms { all, rest: f64::NEG_INFINITY })
        }
    }
}

/// dL/ds times `scale`, in place of s. `norms` is what the loss of the same row gave.
pub(crate) fn soft_gradient(
    scaled: &mut [f32],
    teacher: TargetRow<'_>,
    norms: SoftNorms,
    scale: f32,
    room: &mut Probabilities,
) {
    match teacher {
        TargetRow::List { ids, probabilities } => list_gradient(scaled, ids, probabilities, norms, scale),
        TargetRow::Whole(probabilities) => {
            // Rounded probabilities sum to nearly 1; with what they do sum to, this is the derivative of the loss.
            let mass = expand(probabilities, room);
            scaled_softmax(scaled, norms.all, scale * mass as f32);
            scaled.iter_mut().zip(&*room).for_each(|(gradient, p)| *gradient -= scale * p);
        }
    }
}

/// A row of logits into `scale` times its softmax, given its log-sum-exp.
pub(crate) fn scaled_softmax(row: &mut [f32], log_sum_exp: f64, scale: f32) {
    instructions().dispatch(ScaledSoftmax { row, log_sum_exp: log_sum_exp as f32, scale });
}

fn list_loss(scaled: &mut [f32], ids: &[u32], probabilities: &[f32]) -> (f64, SoftNorms) {
    let (mut score, mut all) = (0.0, LogSum::default());
    for (&id, &probability) in ids.iter().zip(probabilities) {
        // So low that it adds nothing to the sum over those that are not listed.
        let s = f64::from(std::mem::replace(&mut scaled[id as usize], f32::MIN));
        score += f64::from(probability) * s;
        all.add(s);
    }
    let (mass, remaining) = masses(probabilities, scaled.len());
    if ids.len() == scaled.len() {
        let all = all.value();
        return (mass * all - score, SoftNorms { all, rest: f64::NEG_INFINITY });
    }
    let rest = log_sum_exp(scaled);
    all.add(rest);
    let all = all.value();
    ((mass + remaining) * all - score - remaining * rest, SoftNorms { all, rest })
}

fn list_gradient(scaled: &mut [f32], ids: &[u32], probabilities: &[f32], norms: SoftNorms, scale: f32) {
    let (mass, remaining) = masses(probabilities, scaled.len());
    let total = mass + remaining;
    let listed = |(&id, &probability): (&u32, &f32)| {
        let q = (f64::from(scaled[id as usize]) - norms.all).exp();
        scale * (total * q - f64::from(probability)) as f32
    };
    let listed: Vec<f32> = ids.iter().zip(probabilities).map(listed).collect();
    let of_the_rest = total * (norms.rest - norms.all).exp() - remaining;
    // Where there is no rest the factor is 0, and any finite norm will do.
    scaled_softmax(scaled, norms.rest.max(f64::from(f32::MIN)), scale * of_the_rest as f32);
    ids.iter().zip(listed).for_each(|(&id, listed)| scaled[id as usize] = listed);
}

/// What the listed tokens have together, and r: no less than 0 for a sum that was rounded to more than 1, and 0 where all
/// tokens are listed.
fn masses(probabilities: &[f32], vocab_size: usize) -> (f64, f64) {
    let mass: f64 = probabilities.iter().copied().map(f64::from).sum();
    let remaining = if probabilities.len() == vocab_size { 0.0 } else { (1.0 - mass).max(0.0) };
    (mass, remaining)
}

/// Probabilities in f32 into `room`, and their sum.
fn expand(probabilities: &[f16], room: &mut Probabilities) -> f64 {
    room.resize(probabilities.len(), 0.0);
    probabilities.convert_to_f32_slice(room);
    room.iter().copied().map(f64::from).sum()
}

/// ln Σ exp of numbers as they come.
struct LogSum {
    largest: f64,
    sum: f64,
}

impl Default for LogSum {
    fn default() -> Self {
        Self { largest: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl LogSum {
    fn add(&mut self, value: f64) {
        if value > self.largest {
            self.sum = self.sum * (self.largest - value).exp() + 1.0;
            self.largest = value;
        } else {
            self.sum += (value - self.largest).exp();
        }
    }

    fn value(&self) -> f64 {
        self.largest + self.sum.ln()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition in f64: the loss and, by the formula of the definition, its gradient.
    fn exact(s: &[f32], listed: &[(usize, f32)]) -> (f64, Vec<f64>) {
        let s: Vec<f64> = s.iter().copied().map(f64::from).collect();
        let is_listed = |token: usize| listed.iter().any(|(id, _)| *id == token);
        let log_sum = |tokens: &[usize]| {
            let largest = tokens.iter().map(|&token| s[token]).fold(f64::NEG_INFINITY, f64::max);
            largest + tokens.iter().map(|&token| (s[token] - largest).exp()).sum::<f64>().ln()
        };
        let everyone: Vec<usize> = (0..s.len()).collect();
        let others: Vec<usize> = everyone.iter().copied().filter(|&token| !is_listed(token)).collect();
        let all = log_sum(&everyone);
        let mass: f64 = listed.iter().map(|(_, p)| f64::from(*p)).sum();
        let remaining = 1.0 - mass;
        let of_the_listed: f64 = listed.iter().map(|&(id, p)| -f64::from(p) * (s[id] - all)).sum();
        let loss = of_the_listed - remaining * (log_sum(&others) - all);
        let gradient = everyone.iter().map(|&token| match listed.iter().find(|(id, _)| *id == token) {
            Some((_, p)) => (s[token] - all).exp() - f64::from(*p),
            None => (s[token] - all).exp() - remaining * (s[token] - log_sum(&others)).exp(),
        });
        (loss, gradient.collect())
    }

    fn loss_and_gradient(s: &[f32], teacher: TargetRow<'_>) -> (f64, Vec<f32>) {
        let mut room = Vec::new();
        let (loss, norms) = soft_loss(&mut s.to_vec(), teacher, &mut room);
        let mut gradient = s.to_vec();
        soft_gradient(&mut gradient, teacher, norms, 1.0, &mut room);
        (loss, gradient)
    }

    /// Different tokens of a vocabulary, some of a mass below 1 for each, and logits that may lie far from each other.
    fn case() -> impl Strategy<Value = (Vec<f32>, Vec<(usize, f32)>)> {
        (2_usize..40).prop_flat_map(|width| {
            let spread = prop::sample::select(vec![1.0_f32, 30.0, 1000.0]);
            let s = spread.prop_flat_map(move |spread| prop::collection::vec(-spread..spread, width));
            let ids = Just((0..width).collect::<Vec<_>>()).prop_shuffle();
            let shares = prop::collection::vec(0.0_f32..1.0, 1..width);
            let mass = prop_oneof![2 => 0.0_f32..1.0, 1 => Just(0.0), 1 => Just(0.999_999_9)];
            (s, ids, shares, mass).prop_map(|(s, ids, shares, mass)| {
                let sum: f32 = shares.iter().sum::<f32>().max(1e-3);
                let listed = ids.into_iter().zip(shares.into_iter().map(|share| share / sum * mass));
                (s, listed.collect())
            })
        })
    }

    proptest! {
        #[test]
        fn lists_are_the_definition_however_little_is_left((s, listed) in case()) {
            let ids: Vec<u32> = listed.iter().map(|(id, _)| *id as u32).collect();
            let probabilities: Vec<f32> = listed.iter().map(|(_, p)| *p).collect();
            let (loss, gradient) =
                loss_and_gradient(&s, TargetRow::List { ids: &ids, probabilities: &probabilities });
            let (exact_loss, exact_gradient) = exact(&s, &listed);
            // A mass that is rounded to more than 1 leaves nothing, not less than nothing.
            prop_assert!((loss - exact_loss).abs() < 1e-5 * exact_loss.abs().max(40.0), "{} {}", loss, exact_loss);
            for (found, exact) in gradient.iter().zip(exact_gradient) {
                prop_assert!((f64::from(*found) - exact).abs() < 1e-4, "{} {}", found, exact);
            }
            prop_assert!(gradient.iter().copied().map(f64::from).sum::<f64>().abs() < 1e-3);
        }
    }

    #[test]
    fn a_list_of_all_tokens_is_a_whole_distribution() {
        let s = [0.5, -2.0, 3.0, 1.0];
        let probabilities = [0.5, 0.125, 0.25, 0.125];
        let whole = probabilities.map(f16::from_f32);
        let list = TargetRow::List { ids: &[0, 1, 2, 3], probabilities: &probabilities };
        let (list_loss, list_gradient) = loss_and_gradient(&s, list);
        let (whole_loss, whole_gradient) = loss_and_gradient(&s, TargetRow::Whole(&whole));
        assert!((list_loss - whole_loss).abs() < 1e-6);
        for (list, whole) in list_gradient.iter().zip(whole_gradient) {
            assert!((list - whole).abs() < 1e-6);
        }
    }

    #[test]
    fn an_empty_list_teaches_nothing() {
        let nothing = TargetRow::List { ids: &[], probabilities: &[] };
        let (loss, gradient) = loss_and_gradient(&[0.5, -2.0, 3.0], nothing);
        assert!(loss.abs() < 1e-7 && gradient.iter().all(|gradient| gradient.abs() < 1e-7));
    }
}
