//! Softmax cross-entropy with label smoothing, after Szegedy et al. (2016): PyTorch's
//! `CrossEntropyLoss(label_smoothing = …)`, mean over the batch.

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Shape, Tensor};

use super::{Tape, Unary, apply_unary, compose_unary};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::Element;

/// Mean cross-entropy in nats per image, for each lane: `[lanes]`.
///
/// `logits`: `[lanes, batch, classes]`; `labels`: the class of each image; `smoothing`: for each
/// lane, the share of the target's probability that is spread evenly over all classes.
pub(crate) fn cross_entropy(
    logits: &Tensor,
    labels: &Arc<[u8]>,
    smoothing: &[f64],
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    mixed_cross_entropy(logits, labels, None, smoothing, tape)
}

/// The other classes of images that are made of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// The class of each image's other part.
    pub other: Arc<[u8]>,
    /// The share of that part in the target's probability, from 0 to 1.
    pub share: f64,
}

/// [`cross_entropy`] where each image may be of two classes: PyTorch's `CrossEntropyLoss` of
/// probabilities, which is the mean of both losses, weighted by their shares.
pub(crate) fn mixed_cross_entropy(
    logits: &Tensor,
    labels: &Arc<[u8]>,
    mixed: Option<&Mixed>,
    smoothing: &[f64],
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(logits) {
        return super::cuda::cross_entropy(gpu, logits, labels, mixed, smoothing, tape);
    }
    if !matches!(logits.device(), Device::Cpu) {
        return compose_unary(logits, tape, |logits| mixed_composed(logits, labels, mixed, smoothing));
    }
    let (_, batch, classes) = logits.dims3()?;
    let (labels, mixed) = (labels.clone(), mixed.cloned());
    let op =
        CrossEntropy { batch, classes, labels, mixed, smoothing: smoothing.into(), log_sums: Vec::new() };
    apply_unary(op, logits, tape)
}

/// [`cross_entropy`] in candle's ops.
#[cfg(test)]
pub(crate) fn composed(logits: &Tensor, labels: &[u8], smoothing: &[f64]) -> Result<Tensor> {
    mixed_composed(logits, labels, None, smoothing)
}

/// [`mixed_cross_entropy`] in candle's ops.
pub(crate) fn mixed_composed(
    logits: &Tensor,
    labels: &[u8],
    mixed: Option<&Mixed>,
    smoothing: &[f64],
) -> Result<Tensor> {
    let (lanes, batch, classes) = logits.dims3()?;
    let mut targets = vec![0f64; lanes * batch * classes];
    for (lane, smoothing) in smoothing.iter().enumerate() {
        for (image, label) in labels.iter().enumerate() {
            let at = (lane * batch + image) * classes;
            let targets = &mut targets[at..][..classes];
            targets.fill(smoothing / classes as f64);
            let share = mixed.map_or(0.0, |mixed| mixed.share);
            targets[usize::from(*label)] += (1.0 - smoothing) * (1.0 - share);
            if let Some(mixed) = mixed {
                targets[usize::from(mixed.other[image])] += (1.0 - smoothing) * share;
            }
        }
    }
    let targets =
        Tensor::from_vec(targets, (lanes, batch, classes), logits.device())?.to_dtype(logits.dtype())?;
    let log_probabilities = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    (targets * log_probabilities)?.sum(D::Minus1)?.mean(1)?.neg()
}

/// For each lane, how many images get the largest logit for their class: `[lanes]`, in f32.
pub(crate) fn correct(logits: &Tensor, labels: &[u8]) -> Result<Tensor> {
    let labels = Tensor::new(labels, logits.device())?.to_dtype(DType::U32)?.unsqueeze(0)?;
    logits.argmax(D::Minus1)?.broadcast_eq(&labels)?.to_dtype(DType::F32)?.sum(1)
}

struct CrossEntropy {
    batch: usize,
    classes: usize,
    labels: Arc<[u8]>,
    mixed: Option<Mixed>,
    smoothing: Vec<f64>,
    /// Of each row: what [`log_sum`] gave in the forward pass.
    log_sums: Vec<f64>,
}

/// One image's logits in one lane, and its target.
struct Row<'a, T> {
    lane: usize,
    label: usize,
    /// The other class and its share.
    other: Option<(usize, f64)>,
    smoothing: f64,
    logits: &'a [T],
}

impl CrossEntropy {
    fn rows<'a, T>(&'a self, logits: &'a [T]) -> impl Iterator<Item = Row<'a, T>> {
        logits.chunks_exact(self.classes).enumerate().map(|(row, logits)| {
            let (lane, image) = (row / self.batch, row % self.batch);
            let other = self.mixed.as_ref().map(|mixed| (usize::from(mixed.other[image]), mixed.share));
            Row {
                lane,
                label: usize::from(self.labels[image]),
                other,
                smoothing: self.smoothing[lane],
                logits,
            }
        })
    }
}

/// The logarithm of the sum of the logits' exponentials.
fn log_sum<T: Element>(logits: &[T]) -> T {
    let largest =
        logits.iter().fold(logits[0], |largest, &logit| if logit > largest { logit } else { largest });
    let sum = logits.iter().fold(T::zero(), |sum, &logit| sum + (logit - largest).exp());
    largest + sum.ln()
}

impl Unary for CrossEntropy {
    fn output_shape(&self) -> Shape {
        self.smoothing.len().into()
    }

    fn forward<T: Element>(&mut self, logits: &[T]) -> Vec<T> {
        let log_sums: Vec<T> = logits.chunks_exact(self.classes).map(log_sum).collect();
        let mut losses = vec![0.0; self.smoothing.len()];
        for (Row { lane, label, other, smoothing, logits }, &log_sum) in self.rows(logits).zip(&log_sums) {
            let loss_of = |label: usize| (log_sum - logits[label]).to_f64();
            let mut loss = match other {
                None => (1.0 - smoothing) * loss_of(label),
                Some((other, share)) => {
                    (1.0 - smoothing) * ((1.0 - share) * loss_of(label) + share * loss_of(other))
                }
            };
            if smoothing > 0.0 {
                let all = logits.iter().fold(T::zero(), |sum, &logit| sum + (log_sum - logit));
                loss += smoothing * all.to_f64() / self.classes as f64;
            }
            losses[lane] += loss;
        }
        self.log_sums = log_sums.into_iter().map(T::to_f64).collect();
        losses.into_iter().map(|loss| T::from_f64(loss / self.batch as f64)).collect()
    }

    fn backward<T: Element>(&self, logits: &[T], _y: &[T], dy: &[T]) -> Vec<T> {
        let mut gradient = Vec::with_capacity(logits.len());
        for (Row { lane, label, other, smoothing, logits }, log_sum) in self.rows(logits).zip(&self.log_sums)
        {
            let log_sum = T::from_f64(*log_sum);
            let scale = dy[lane] / T::from_f64(self.batch as f64);
            let spread = T::from_f64(smoothing / self.classes as f64);
            let first = gradient.len();
            gradient.extend(logits.iter().map(|&logit| ((logit - log_sum).exp() - spread) * scale));
            match other {
                None => gradient[first + label] -= T::from_f64(1.0 - smoothing) * scale,
                Some((other, share)) => {
                    gradient[first + label] -= T::from_f64((1.0 - smoothing) * (1.0 - share)) * scale;
                    gradient[first + other] -= T::from_f64((1.0 - smoothing) * share) * scale;
                }
            }
        }
        gradient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{assert_close, check_unary, flat, numbers};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        let labels: Arc<[u8]> = [2, 0, 1, 3].into();
        let smoothing = [0.0, 0.25, 0.5];
        check_unary(
            "cross-entropy",
            &numbers("logits", &[3, 4, 5]),
            &|x, tape| cross_entropy(x, &labels, &smoothing, tape),
            &|x| composed(x, &labels, &smoothing),
        );
    }

    #[test]
    fn gradients_of_mixed_images_are_those_of_finite_differences_and_of_the_composed_form() {
        let labels: Arc<[u8]> = [2, 0, 1, 3].into();
        // The last image is mixed with one of its own class.
        let mixed = Mixed { other: [1, 2, 0, 3].into(), share: 0.3 };
        let smoothing = [0.0, 0.25, 0.5];
        check_unary(
            "mixed cross-entropy",
            &numbers("logits", &[3, 4, 5]),
            &|x, tape| mixed_cross_entropy(x, &labels, Some(&mixed), &smoothing, tape),
            &|x| mixed_composed(x, &labels, Some(&mixed), &smoothing),
        );
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let logits = Tensor::new(&[[[1000.0f32, 0.0], [0.0, 1000.0]]], &Device::Cpu).expect("good");
        let labels: Arc<[u8]> = [0, 0].into();
        assert_close(
            "loss",
            &flat(&cross_entropy(&logits, &labels, &[0.0], None).expect("good")),
            &[500.0],
            1e-6,
        );
        assert_eq!(flat(&correct(&logits, &labels).expect("good")), [1.0]);
    }
}
