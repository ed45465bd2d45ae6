//! How numbers, times and other people's text look on the screen.

use std::time::Duration;

use fittingroom_common::trial::Finite;

/// Text from elsewhere on one line, without anything that could steer a terminal.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() {
            if !clean.ends_with(' ') {
                clean.push(' ');
            }
        } else if !c.is_control() && !turns_text(c) {
            clean.push(c);
        }
    }
    clean
}

/// Whether a character changes the direction in which the text around it is shown.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A share as a percentage: `91.23 %`.
pub(crate) fn percent(share: Finite) -> String {
    format!("{:.2} %", share.get() * 100.0)
}

/// A loss with four decimals, or in powers of ten where it is beyond reading: `0.3456`, `1.2000e9`.
pub(crate) fn loss(loss: Finite) -> String {
    let loss = loss.get();
    if loss.abs() < 1e5 { format!("{loss:.4}") } else { format!("{loss:.4e}") }
}

/// A duration with two units: `4s`, `1m 12s`, `2h 05m`, `3d 04h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// A duration that came as seconds; nothing sensible is shown as `?`.
pub(crate) fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "?".to_owned(), duration)
}

/// A number and its unit, in the singular or the plural: `1 trial`, `40 trials`.
pub(crate) fn plural(count: u64, unit: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{ending}")
}

/// A number with its digits in groups of three: `60,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finite(number: f64) -> Finite {
        Finite::new(number).expect("finite")
    }

    #[test]
    fn numbers_look_as_people_write_them() {
        for (number, text) in [(0.912_34, "91.23 %"), (1.0, "100.00 %"), (0.0, "0.00 %")] {
            assert_eq!(percent(finite(number)), text);
        }
        for (number, text) in [(0.345_61, "0.3456"), (12.0, "12.0000"), (1.2e9, "1.2000e9")] {
            assert_eq!(loss(finite(number)), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (72, "1m 12s"),
            (3_599, "59m 59s"),
            (7_500, "2h 05m"),
            (273_600, "3d 04h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(seconds(f64::MAX), "?");
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_a_terminal() {
        for (given, shown) in [
            ("plain", "plain"),
            ("two\nlines", "two lines"),
            ("a \t b", "a b"),
            ("\u{1b}]0;title\u{7}x", "]0;titlex"),
            ("\u{9b}2Jx", "2Jx"),
            ("abc\u{202e}fed", "abcfed"),
            ("naïve 日本", "naïve 日本"),
        ] {
            assert_eq!(clean(given), shown, "for {given:?}");
        }
    }
}
