//! A shuffle of the numbers below a size that needs no list of them.
//!
//! A Feistel network permutes all numbers of an even count of bits; a result that is not below the
//! size is put in again until one is ("cycle walking": Black and Rogaway, "Ciphers with arbitrary
//! finite domains", 2002). This is a shuffle, not a cipher: its rounds mix, they do not hide.

use fittingroom_common::rng::Stream;
use rand::RngCore;

const ROUNDS: usize = 8;

/// A permutation of `0..size`.
#[derive(Clone, Debug)]
pub(super) struct Permutation {
    size: u64,
    /// The numbers permuted are those of twice as many bits, fewer than four times `size`.
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation that the stream decides. `size` is at most 2^62.
    pub(super) fn new(size: u64, stream: &Stream) -> Self {
        let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
        let mut generator = stream.generator();
        Self { size, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| generator.next_u64()) }
    }

    /// Where the permutation takes a number below its size; a number that is not stays itself.
    pub(super) fn at(&self, number: u64) -> u64 {
        if number >= self.size {
            return number;
        }
        // Ends: the walk goes round a circle on which `number` itself lies.
        let mut walked = self.rounds(number);
        while walked >= self.size {
            walked = self.rounds(walked);
        }
        walked
    }

    fn rounds(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// SplitMix64's output function (Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(size: u64, seed: u64) -> Vec<u64> {
        let permutation = Permutation::new(size, &Stream::new(seed));
        (0..size).map(|number| permutation.at(number)).collect()
    }

    #[test]
    fn every_number_comes_once() {
        for size in [1, 2, 3, 4, 5, 15, 16, 17, 100, 1_000, 4_097] {
            let mut found = order(size, size);
            found.sort_unstable();
            assert_eq!(found, (0..size).collect::<Vec<_>>(), "of size {size}");
        }
    }

    #[test]
    fn every_number_comes_first_for_about_as_many_seeds() {
        let size = 6;
        let mut first = [0u32; 6];
        for seed in 0..6_000 {
            first[order(size, seed)[0] as usize] += 1;
        }
        // 1000 each, with a standard deviation of 29.
        assert!(first.iter().all(|count| (850..1_150).contains(count)), "{first:?}");
    }

    #[test]
    fn the_largest_size_is_walked_too() {
        let permutation = Permutation::new(1 << 62, &Stream::new(1));
        let found: std::collections::HashSet<u64> = (0..1_000).map(|number| permutation.at(number)).collect();
        assert_eq!(found.len(), 1_000);
    }
}
