//! Times single ops: `cargo bench -p fittingroom-worker --bench ops`.
//!
//! Prints, for convolutions of the models' shapes, the milliseconds of forward and backward passes and
//! the multiplications and additions per second, counted as a direct convolution needs them. The number
//! given is the fastest tenth of many short runs, which is what a busy machine disturbs least.
//! An argument restricts it to layers whose name contains it; `peak` prints nothing but the GFLOP/s of the
//! fastest matrix product.
// This program exists to print.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use candle_core::{Device, Result, Tensor};
use fittingroom_worker::allocator::keep_freed_memory;
use fittingroom_worker::train::ops::convolution::convolution;
use fittingroom_worker::train::ops::{Activation, GradientSlot, InputGradient, Leaf, Tape, Window};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;

/// A convolution layer on square images.
struct Layer {
    name: &'static str,
    side: usize,
    channels: usize,
    outputs: usize,
    window: Window,
}

const fn layer(
    name: &'static str,
    side: usize,
    [channels, outputs]: [usize; 2],
    [size, stride, padding]: [usize; 3],
) -> Layer {
    Layer { name, side, channels, outputs, window: Window { size, stride, padding } }
}

const LAYERS: [Layer; 12] = [
    layer("lenet, first", 28, [1, 32], [5, 1, 2]),
    layer("lenet, second", 14, [32, 64], [5, 1, 2]),
    layer("3x3 first", 28, [1, 32], [3, 1, 1]),
    layer("3x3 at 28", 28, [32, 32], [3, 1, 1]),
    layer("3x3 at 14", 14, [64, 64], [3, 1, 1]),
    layer("3x3 at 7", 7, [128, 128], [3, 1, 1]),
    layer("3x3 down to 14", 28, [32, 64], [3, 2, 1]),
    layer("3x3 down to 7", 14, [64, 128], [3, 2, 1]),
    layer("1x1 down to 14", 28, [32, 64], [1, 2, 0]),
    layer("alexnet, second", 13, [64, 192], [3, 1, 1]),
    layer("alexnet, third", 6, [192, 384], [3, 1, 1]),
    layer("alexnet, fourth", 6, [384, 256], [3, 1, 1]),
];

fn main() -> Result<()> {
    keep_freed_memory();
    // Cargo passes `--bench` along.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    if filter == "peak" {
        println!("{:.0}", peak());
        return Ok(());
    }
    println!("batch {BATCH}; fastest matrix product {:.0} GFLOP/s", peak());
    println!("{:20}{:>12}{:>12}{:>14}{:>12}", "layer", "forward, ms", "GFLOP/s", "backward, ms", "GFLOP/s");
    for layer in LAYERS.iter().filter(|layer| layer.name.contains(&filter)) {
        layer.measure()?;
    }
    Ok(())
}

impl Layer {
    fn measure(&self) -> Result<()> {
        let device = Device::Cpu;
        let patch = self.window.size * self.window.size * self.channels;
        let x = Tensor::rand(-1f32, 1.0, (1, BATCH, self.side, self.side, self.channels), &device)?;
        // Nobody asks for the gradient of the images.
        let first = self.channels == 1;
        let input = if first { InputGradient::Unwanted } else { InputGradient::Wanted };
        let weight = Tensor::rand(-1f32, 1.0, (1, self.outputs, patch), &device)?;
        let bias = Tensor::rand(-1f32, 1.0, (1, self.outputs), &device)?;
        let slots = [GradientSlot::default(), GradientSlot::default()];
        let forward = |tape: Option<&mut Tape>| {
            let (weight, bias) =
                (Leaf { tensor: &weight, gradient: &slots[0] }, Leaf { tensor: &bias, gradient: &slots[1] });
            convolution(&x, weight, bias, self.window, Activation::Identity, tape)
        };
        let y = forward(None)?;
        let dy = y.ones_like()?;
        let forward_seconds = seconds(|| forward(None).map(|_| ()))?;
        let both_seconds = seconds(|| {
            let mut tape = Tape::taking(input);
            forward(Some(&mut tape))?;
            tape.play(dy.clone())?;
            slots.iter().for_each(|slot| drop(slot.take()));
            Ok(())
        })?;
        let backward_seconds = both_seconds - forward_seconds;
        let operations = 2.0 * (y.elem_count() * patch) as f64;
        let backward_operations = if first { operations } else { 2.0 * operations };
        println!(
            "{:20}{:12.2}{:12.0}{:14.2}{:12.0}",
            self.name,
            forward_seconds * 1e3,
            operations / forward_seconds / 1e9,
            backward_seconds * 1e3,
            backward_operations / backward_seconds / 1e9,
        );
        Ok(())
    }
}

/// GFLOP/s of a product of two matrices that fit into the cache.
fn peak() -> f64 {
    const SIZE: usize = 384;
    let (left, right) = (vec![0.5f32; SIZE * SIZE], vec![0.25f32; SIZE * SIZE]);
    let mut out = vec![0f32; SIZE * SIZE];
    let time = seconds(|| {
        // SAFETY: the three matrices are row-major, of these sizes, and do not overlap.
        unsafe {
            gemm::gemm(
                SIZE,
                SIZE,
                SIZE,
                out.as_mut_ptr(),
                1,
                SIZE as isize,
                false,
                left.as_ptr(),
                1,
                SIZE as isize,
                right.as_ptr(),
                1,
                SIZE as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        Ok(())
    });
    time.map_or(f64::NAN, |seconds| 2.0 * (SIZE * SIZE * SIZE) as f64 / seconds / 1e9)
}

/// The fastest tenth of the runs within half a second, at least ten.
fn seconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < 10 || started.elapsed() < Duration::from_millis(500) {
        let run = Instant::now();
        work()?;
        times.push(run.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 10])
}
