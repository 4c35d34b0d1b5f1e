//! The other tools' rules, and the table of all of them.

use super::{asked, close};
use crate::core::stats::baselines::{RULES, Rule, Scenario, compare, head_to_head, quantile};
use crate::core::stats::kayenta::{Label, judge, shift};

#[test]
fn kayenta_says_what_kayenta_says() {
    let mixed = |slow: usize| [vec![100.0; slow], vec![1.0; 10 - slow]].concat();
    let seven = shift(&mixed(7), &[1.0; 10]);
    close(seven.low, 6.82502299e-5, 1e-12);
    close(seven.estimate, 98.999929, 1e-6);
    assert_eq!(judge(&mixed(7), &[1.0; 10]), Label::Pass);
    assert_eq!(judge(&mixed(8), &[1.0; 10]), Label::High);
    assert_eq!(judge(&[0.0, 1.0, 2.0, 1.0, 0.0, 0.0], &[0.0; 6]), Label::Pass);
    assert_eq!(judge(&[20.0, 22.0, 21.0, 25.0, 30.0], &[1.0, 2.2, 1.1, 2.5, 3.0]), Label::High);
    assert_eq!(judge(&[1.0, 2.2, 1.1, 2.5, 3.0], &[20.0, 22.0, 21.0, 25.0, 30.0]), Label::Pass);
    assert_eq!(judge(&[3.0, 1.0, 2.0], &[1.0, 2.0, 3.0]), Label::Pass);
    assert_eq!((judge(&[2.0; 20], &[1.0; 20]), judge(&[1.0; 20], &[2.0; 20])), (Label::High, Label::Pass));
    assert_eq!(judge(&[f64::NAN], &[1.0]), Label::NoData);
}

#[test]
fn quantiles_as_prometheus_computes_them() {
    // 3 calls: one up to 0.5 s, two up to 0.7 s.
    let mut slower = [0; 16];
    slower[..7].copy_from_slice(&[3, 3, 3, 3, 3, 2, 2]);
    close(quantile(0.95, &slower), 0.6 + 0.1 * (0.95 * 3.0 - 1.0) / 2.0, 1e-12);
    close(quantile(0.1, &slower), 0.4 + 0.1 * 0.3, 1e-12);
    assert!(quantile(0.95, &[0; 16]).is_nan());
    assert_eq!(quantile(0.95, &[4; 16]), 5.0);
}

/// Shares in percent and median minutes (0: not known) of each rule, of 600 rollouts by another program.
type Column = (f64, Scenario, [(f64, f64); 8]);

fn column(turns: f64, scenario: Scenario, aborted: [f64; 8], minutes: [f64; 8]) -> Column {
    (turns, scenario, std::array::from_fn(|rule| (aborted[rule], minutes[rule])))
}

#[test]
fn the_table_is_what_it_was_elsewhere() {
    use Scenario::{Null, Shared, Slower};
    let unknown = [0.0; 8];
    let mut columns = vec![
        column(60.0, Null, [94.0, 62.5, 22.0, 14.0, 0.0, 0.7, 0.2, 0.0], unknown),
        column(60.0, Slower(1.3), [100.0, 98.0, 70.0, 75.0, 0.3, 89.0, 73.0, 11.0], [5.0, 8.0, 13.0, 21.0, 0.0, 13.0, 17.0, 15.0]),
        column(300.0, Slower(1.15), [100.0, 61.0, 1.2, 98.5, 41.0, 96.5, 89.0, 0.5], [5.0, 14.0, 0.0, 16.0, 20.0, 11.0, 15.0, 0.0]),
        column(300.0, Shared(1.3), [100.0, 75.0, 2.6, 97.0, 0.0, 1.8, 0.2, 0.0], unknown),
    ];
    let rollouts = if asked().is_some() { 600 } else { 150 };
    if asked().is_some() {
        columns.extend([
            column(60.0, Shared(1.3), [99.0, 86.0, 45.0, 33.0, 0.0, 1.2, 0.2, 0.0], unknown),
            column(300.0, Null, [82.0, 7.8, 0.0, 61.0, 0.7, 2.3, 0.5, 0.0], unknown),
            column(300.0, Slower(1.3), [100.0, 99.0, 15.0, 100.0, 97.5, 100.0, 100.0, 54.0], [4.0, 7.0, 0.0, 10.0, 20.0, 3.0, 5.0, 15.0]),
            column(1500.0, Null, [47.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], unknown),
            column(1500.0, Shared(1.3), [100.0, 73.0, 0.0, 79.0, 0.0, 1.3, 0.3, 0.0], unknown),
            column(1500.0, Slower(1.15), [100.0, 8.0, 0.0, 57.0, 99.0, 100.0, 100.0, 0.0], [4.0, 0.0, 0.0, 24.0, 10.0, 3.0, 4.0, 0.0]),
        ]);
    }
    for (turns, scenario, expected) in columns {
        let cells = compare(&RULES, turns, scenario, rollouts, 1);
        for ((rule, cell), (share, minute)) in RULES.iter().zip(cells).zip(expected) {
            let share = share / 100.0;
            let error = 0.03 + 3.0 * (share * (1.0f64 - share) / f64::from(rollouts)).sqrt();
            assert!((cell.aborted - share).abs() <= error, "{turns} {scenario} {rule}: {cell}, not {share}");
            if minute > 0.0 && share >= 0.4 {
                let found = cell.minute.unwrap_or(0.0);
                assert!((found - minute).abs() <= (0.3 * minute).max(1.0), "{turns} {scenario} {rule}: {cell}, not {minute}");
            }
        }
    }
}

#[test]
fn the_table_is_markdown() {
    let text = head_to_head(1, 1).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 + RULES.len());
    assert!(lines.iter().all(|line| line.matches('|').count() == 14), "{text}");
    assert!(lines[0].starts_with("| rule | 60/min same | 60/min both x1.3 |"), "{text}");
    assert_eq!(Rule::Ours(0.01).to_string(), "VoiceRollout, falseAbort 0.01");
}
