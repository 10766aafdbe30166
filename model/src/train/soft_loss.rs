//! The cross entropies of a student with its text and with its teacher, as one candle operation: one pass over the logits
//! forward and one backward. Knows nothing about where the teacher's distributions come from, or how the two losses
//! are weighed.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use chorus_simd::log_sum_exp;
use rayon::prelude::*;

use super::loss::rows;
use super::soft_row::{Probabilities, SoftNorms, scaled_softmax, soft_gradient, soft_loss};
use super::teacher::{SoftTargets, TargetRow};

/// The mean over all rows of the cross entropy with the targets, -ln softmax(logits)[target], and of that with the
/// teacher at its temperature, in nats: `[2]`.
///
/// `logits` is `[N, V]` in f32, `targets` is `[N]` in u32 with every entry below V; `positions` are the teacher's N rows,
/// each of a vocabulary of V tokens. Gradients flow to `logits`. Runs on the CPU.
pub(crate) fn hard_and_soft_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    teacher: Arc<SoftTargets>,
    positions: Vec<usize>,
) -> Result<Tensor> {
    let operation = HardAndSoft { lesson: Lesson { teacher, positions }, norms: OnceLock::new() };
    logits.contiguous()?.apply_op2(targets, operation)
}

/// What the teacher says of each row.
struct Lesson {
    teacher: Arc<SoftTargets>,
    positions: Vec<usize>,
}

/// The forward pass keeps of each row what the backward pass needs: the log-sum-exp of its logits, and those over the
/// temperature.
struct HardAndSoft {
    lesson: Lesson,
    norms: OnceLock<Vec<(f64, SoftNorms)>>,
}

/// The derivative of `scales[0]` · Σ hard + `scales[1]` · Σ soft over the rows.
struct HardAndSoftGradient<'a> {
    lesson: &'a Lesson,
    norms: &'a [(f64, SoftNorms)],
    scales: [f32; 2],
}

/// What a thread works in, V numbers each.
#[derive(Default)]
struct Scratch {
    logits: Vec<f32>,
    probabilities: Probabilities,
}

impl Lesson {
    /// The teacher's rows, checked: as many as there are rows of logits, and as wide.
    fn rows(&self, count: usize, width: usize) -> Result<Vec<TargetRow<'_>>> {
        let Self { teacher, positions } = self;
        if teacher.vocab_size() != width {
            bail!(
                "soft cross-entropy: {width} logits a row, but a teacher of {} tokens",
                teacher.vocab_size()
            )
        }
        if positions.len() != count {
            bail!("soft cross-entropy: {count} rows of logits, but {} of the teacher", positions.len())
        }
        let row = |&position: &usize| match teacher.row(position) {
            Some(row) => Ok(row),
            None => bail!("soft cross-entropy: position {position} of a teacher of {}", teacher.len()),
        };
        positions.iter().map(row).collect()
    }

    fn inverse_temperature(&self) -> f32 {
        (1.0 / self.teacher.temperature()) as f32
    }
}

impl CustomOp2 for HardAndSoft {
    fn name(&self) -> &'static str {
        "hard-and-soft-cross-entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (logits, targets, width) = rows(logits, logits_layout, targets, targets_layout)?;
        let teacher = self.lesson.rows(targets.len(), width)?;
        let inverse = self.lesson.inverse_temperature();
        let row = |scratch: &mut Scratch, (at, row): (usize, &[f32])| {
            let hard_norm = log_sum_exp(row);
            let hard = hard_norm - f64::from(row[targets[at] as usize]);
            scratch.logits.clear();
            scratch.logits.extend(row.iter().map(|logit| logit * inverse));
            let (soft, soft_norms) = soft_loss(&mut scratch.logits, teacher[at], &mut scratch.probabilities);
            ([hard, soft], (hard_norm, soft_norms))
        };
        let rows = logits.par_chunks_exact(width).enumerate().map_init(Scratch::default, row);
        let (losses, norms): (Vec<[f64; 2]>, Vec<_>) = rows.unzip();
        // Summed in the order of the rows, so that the sums do not depend on the threads.
        let mean = |which: usize| {
            (losses.iter().map(|losses| losses[which]).sum::<f64>() / losses.len() as f64) as f32
        };
        self.norms.get_or_init(|| norms);
        Ok((CpuStorage::F32(vec![mean(0), mean(1)]), Shape::from(2)))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        _means: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(norms) = self.norms.get() else {
            bail!("soft cross-entropy: the backward pass ran before the forward pass")
        };
        let [hard, soft] = gradient.to_vec1::<f32>()?[..] else {
            bail!("soft cross-entropy: the gradient is not that of two means")
        };
        let scales = [hard, soft].map(|gradient| gradient / norms.len() as f32);
        let gradient = HardAndSoftGradient { lesson: &self.lesson, norms, scales };
        Ok((Some(logits.apply_op2_no_bwd(targets, &gradient)?), None))
    }
}

impl CustomOp2 for HardAndSoftGradient<'_> {
    fn name(&self) -> &'static str {
        "hard-and-soft-cross-entropy-gradient"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (logits, targets, width) = rows(logits, logits_layout, targets, targets_layout)?;
        let teacher = self.lesson.rows(targets.len(), width)?;
        let inverse = self.lesson.inverse_temperature();
        let [hard, soft] = self.scales;
        let mut gradient = vec![0f32; logits.len()];
        let row = |scratch: &mut Scratch, (at, gradient): (usize, &mut [f32])| {
            let row = &logits[at * width..(at + 1) * width];
            let (hard_norm, soft_norms) = self.norms[at];
            gradient.iter_mut().zip(row).for_each(|(gradient, logit)| *gradient = logit * inverse);
            let room = &mut scratch.probabilities;
            // d(z / T)/dz is one more factor 1 / T.
            soft_gradient(gradient, teacher[at], soft_norms, soft * inverse, room);
            if hard != 0.0 {
                scratch.logits.clear();
                scratch.logits.extend_from_slice(row);
                scaled_softmax(&mut scratch.logits, hard_norm, hard);
                gradient.iter_mut().zip(&scratch.logits).for_each(|(gradient, hard)| *gradient += hard);
                gradient[targets[at] as usize] -= hard;
            }
        };
        gradient.par_chunks_exact_mut(width).enumerate().for_each_init(Scratch::default, row);
        Ok((CpuStorage::F32(gradient), logits_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, DType, Device, Var};

    use super::super::loss::cross_entropy;
    use super::super::teacher::TargetForm;
    use super::*;

    const TARGETS: [u32; 3] = [0, 6, 3];
    const LISTS: [(&[u32], &[f32]); 3] =
        [(&[4, 0], &[0.5, 0.25]), (&[1], &[0.125]), (&[6, 2, 5], &[0.5, 0.3125, 0.1875])];
    const WHOLE: [[f32; 7]; 3] = [
        [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        [0.125, 0.25, 0.125, 0.125, 0.125, 0.125, 0.125],
    ];

    fn logarithms(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    fn lists(temperature: f64) -> SoftTargets {
        let mut targets = SoftTargets::new(TargetForm::TopK(3), 7, temperature).unwrap();
        LISTS.iter().for_each(|(ids, p)| targets.push_list(ids, &logarithms(p)).unwrap());
        targets
    }

    fn whole(temperature: f64) -> SoftTargets {
        let mut targets = SoftTargets::new(TargetForm::Dense, 7, temperature).unwrap();
        WHOLE.iter().for_each(|p| targets.push_dense(&logarithms(p)).unwrap());
        targets
    }

    fn logits() -> Var {
        let values: Vec<f32> = (0..21).map(|i| ((i * 37 % 19) as f32 - 9.0) * 0.7).collect();
        Var::from_vec(values, (3, 7), &Device::Cpu).unwrap()
    }

    fn targets() -> Tensor {
        Tensor::new(&TARGETS, &Device::Cpu).unwrap()
    }

    fn losses(logits: &Var, teacher: SoftTargets) -> Tensor {
        hard_and_soft_cross_entropy(logits, &targets(), Arc::new(teacher), vec![0, 1, 2]).unwrap()
    }

    /// Of 0.25 · hard + 3 · soft.
    fn gradient(logits: &Var, losses: &Tensor) -> Vec<f32> {
        let weights = Tensor::new(&[0.25_f32, 3.0], &Device::Cpu).unwrap();
        let gradients = (losses * weights).unwrap().sum_all().unwrap().backward().unwrap();
        gradients.get(logits).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn assert_close<T: Copy + Into<f64>>(ours: &[f32], expected: &[T]) {
        assert_eq!(ours.len(), expected.len());
        for (&ours, &expected) in ours.iter().zip(expected) {
            let expected: f64 = expected.into();
            assert!((f64::from(ours) - expected).abs() < 2e-6, "{ours} instead of {expected}");
        }
    }

    fn assert_is(teacher: SoftTargets, losses_expected: [f64; 2], gradient_expected: [[f64; 7]; 3]) {
        let logits = logits();
        let losses = losses(&logits, teacher);
        assert_close(&losses.to_vec1::<f32>().unwrap(), &losses_expected);
        assert_close(&gradient(&logits, &losses), gradient_expected.as_flattened());
    }

    /// Made with PyTorch 2 in f64 by
    /// ```python
    /// z = torch.tensor([((i * 37 % 19) - 9) * 0.7 for i in range(21)]).reshape(3, 7).requires_grad_()
    /// soft = 0
    /// for s, (ids, p) in zip(z / 2, LISTS):
    ///     listed = torch.zeros(7, dtype=torch.bool); listed[ids] = True
    ///     log_q, p = s - s.logsumexp(0), torch.tensor(p)
    ///     soft = soft - (p * log_q[ids]).sum() / 3 - (1 - p.sum()) * log_q[~listed].logsumexp(0) / 3
    /// hard = cross_entropy(z, TARGETS); (0.25 * hard + 3 * soft).backward(); print(hard, soft, z.grad)
    /// ```
    #[test]
    fn lists_give_pytorchs_losses_and_gradients() {
        let gradient = [
            [-0.20802440, 0.16306644, 0.10604792, 0.07032944, -0.18594025, 0.03229906, 0.02222180],
            [0.02076289, 0.07236702, -0.00025545, -0.00234900, -0.00273240, -0.00246035, -0.08533272],
            [0.00513204, 0.00361455, -0.15370383, -0.08153955, 0.00126382, -0.09285952, 0.31809248],
        ];
        assert_is(lists(2.0), [9.78343953, 2.07087952], gradient);
    }

    /// The same with `soft = cross_entropy(z / 2, WHOLE)`.
    #[test]
    fn whole_distributions_give_pytorchs_losses_and_gradients() {
        let gradient = [
            [-0.33302440, 0.08574644, 0.07714745, 0.06275663, 0.04843475, 0.02843180, 0.03050734],
            [0.20386705, 0.13486702, -0.40932861, 0.06172606, 0.04242053, 0.02935838, -0.06291044],
            [-0.05736796, -0.12138545, -0.05995383, -0.14403955, -0.06123618, -0.06160952, 0.50559248],
        ];
        assert_is(whole(2.0), [9.78343953, 3.64847344], gradient);
    }

    #[test]
    fn values_and_gradients_equal_the_composed_operations() {
        let logits = logits();
        let log_q = candle_nn::ops::log_softmax(&(logits.as_tensor() / 0.7).unwrap(), D::Minus1).unwrap();
        let mut masked = vec![1.0_f32; 21];
        let mut listed = vec![0.0_f32; 21];
        for (row, (ids, probabilities)) in LISTS.iter().enumerate() {
            for (&id, &p) in ids.iter().zip(*probabilities) {
                (masked[row * 7 + id as usize], listed[row * 7 + id as usize]) = (0.0, p);
            }
        }
        let tensor = |values| Tensor::from_vec(values, (3, 7), &Device::Cpu).unwrap();
        let (masked, listed) = (tensor(masked), tensor(listed));
        let remaining = listed.sum(D::Minus1).unwrap().affine(-1.0, 1.0).unwrap();
        let log_rest = (log_q.exp().unwrap() * masked).unwrap().sum(D::Minus1).unwrap().log().unwrap();
        let of_the_listed = (log_q * listed).unwrap().sum(D::Minus1).unwrap();
        let soft =
            (of_the_listed + (log_rest * remaining).unwrap()).unwrap().mean_all().unwrap().neg().unwrap();
        let hard = candle_nn::loss::cross_entropy(&logits, &targets()).unwrap();
        let composed = Tensor::stack(&[hard, soft], 0).unwrap();
        let fused = losses(&logits, lists(0.7));
        let values = |losses: &Tensor| losses.to_vec1::<f32>().unwrap();
        assert_close(&values(&fused), &values(&composed));
        let (fused, composed) = (gradient(&logits, &fused), gradient(&logits, &composed));
        // The composed operations take 1 - r / q_R, which loses a few more digits.
        fused.iter().zip(composed).for_each(|(fused, composed)| assert!((fused - composed).abs() < 1e-5));
    }

    #[test]
    fn a_teacher_who_is_sure_of_the_text_is_the_text() {
        let mut sure = SoftTargets::new(TargetForm::TopK(1), 7, 1.0).unwrap();
        TARGETS.iter().for_each(|&target| sure.push_list(&[target], &[0.0]).unwrap());
        let logits = logits();
        let both = losses(&logits, sure);
        let hard = cross_entropy(&logits, &targets()).unwrap().to_scalar::<f32>().unwrap();
        assert_close(&both.to_vec1::<f32>().unwrap(), &[hard, hard]);
        let hard_gradient = cross_entropy(&logits, &targets()).unwrap().backward().unwrap();
        let hard_gradient = (hard_gradient.get(&logits).unwrap() * 3.25).unwrap();
        let hard_gradient: Vec<f32> = hard_gradient.flatten_all().unwrap().to_vec1().unwrap();
        assert_close(&gradient(&logits, &both), &hard_gradient);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let refusal = |teacher, positions, width| {
            let logits = Tensor::zeros((3, width), DType::F32, &Device::Cpu).unwrap();
            let teacher = Arc::new(teacher);
            hard_and_soft_cross_entropy(&logits, &targets(), teacher, positions).unwrap_err().to_string()
        };
        let width = refusal(lists(1.0), vec![0, 1, 2], 8);
        assert!(width.contains("8 logits a row, but a teacher of 7 tokens"), "{width}");
        let count = refusal(lists(1.0), vec![0, 1], 7);
        assert!(count.contains("3 rows of logits, but 2 of the teacher"), "{count}");
        let position = refusal(whole(1.0), vec![0, 1, 3], 7);
        assert!(position.contains("position 3 of a teacher of 3"), "{position}");
    }
}
