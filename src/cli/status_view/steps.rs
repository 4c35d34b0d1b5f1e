//! The list of steps, with a mark at each: passed, current, where it was aborted.

use jiff::{SignedDuration, Timestamp};

use super::super::table::{Cell, Ink, Paint, lines};
use super::span;
use crate::api::rollout::{Analysis, CanaryScale, Step, VoiceRolloutSpec};
use crate::api::status::VoiceRolloutStatus;
use crate::core::plan::DEFAULT_WEIGHTS;

/// One line a step.
pub fn view(spec: &VoiceRolloutSpec, status: &VoiceRolloutStatus, now: Timestamp, paint: Paint) -> Vec<String> {
    let aborted = status.abort.as_ref().and_then(|abort| one_based(&abort.step));
    let current = aborted.or_else(|| usize::try_from(status.current_step?).ok());
    let since = status.step.started_at.as_ref().filter(|_| aborted.is_none());
    let row = |(at, text): (usize, String)| {
        let (mark, ink) = match current {
            Some(current) if at < current => ("✓", Ink::Green),
            Some(current) if at == current && aborted.is_some() => ("✗", Ink::Red),
            Some(current) if at == current => ("▶", Ink::Cyan),
            _ => ("·", Ink::Dim),
        };
        let time = since.filter(|_| current == Some(at)).map(|since| span(now.duration_since(since.0))).unwrap_or_default();
        let overridden = status.overridden_steps.iter().any(|step| one_based(step) == Some(at));
        let text = if overridden { format!("{text} (overridden by a person)") } else { text };
        let text_ink = if ink == Ink::Green { Ink::Plain } else { ink };
        [Cell::new(ink, mark), format!("{}", at + 1).into(), Cell::new(text_ink, text), time.into()]
    };
    lines(paint, &texts(spec).into_iter().enumerate().map(row).collect::<Vec<[Cell; 4]>>())
}

/// What the current step is, for whoever would end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// It moves pods and weights.
    Moves,
    /// A pause.
    Pause,
    /// An analysis.
    Analysis,
    /// Every step is over.
    End,
}

impl At {
    /// Of a release that goes through its steps.
    pub fn of(spec: &VoiceRolloutSpec, status: &VoiceRolloutStatus) -> Self {
        let index = status.current_step.and_then(|i| usize::try_from(i).ok()).unwrap_or(0);
        match &spec.steps {
            // Weights and analyses by turns.
            None if index >= 2 * DEFAULT_WEIGHTS.len() => Self::End,
            None => {
                if index.is_multiple_of(2) {
                    Self::Moves
                } else {
                    Self::Analysis
                }
            }
            Some(steps) => match steps.get(index) {
                None => Self::End,
                Some(step) if step.pause.is_some() => Self::Pause,
                Some(step) if step.analysis.is_some() => Self::Analysis,
                Some(_) => Self::Moves,
            },
        }
    }
}

/// The index that a display such as `3/10` stands for.
fn one_based(display: &str) -> Option<usize> {
    display.split('/').next()?.parse::<usize>().ok()?.checked_sub(1)
}

fn texts(spec: &VoiceRolloutSpec) -> Vec<String> {
    match &spec.steps {
        Some(steps) => steps.iter().map(text).collect(),
        None => {
            DEFAULT_WEIGHTS.iter().flat_map(|weight| [format!("setWeight {weight}"), "analysis in the background passes".into()]).collect()
        }
    }
}

fn text(step: &Step) -> String {
    let weight = step.set_weight.map(|weight| format!("setWeight {weight}"));
    let pause = step.pause.as_ref().map(|pause| match pause.duration {
        Some(duration) => {
            let length = SignedDuration::try_from(crate::api::common::std_duration(duration)).unwrap_or(SignedDuration::MAX);
            format!("pause {}", span(length))
        }
        None => "pause until promoted".into(),
    });
    let analysis = step.analysis.as_ref().map(analysis);
    let scale = step.set_canary_scale.as_ref().map(scale);
    weight.or(pause).or(analysis).or(scale).unwrap_or_default()
}

fn analysis(analysis: &Analysis) -> String {
    let templates = analysis.templates.iter().map(|template| template.name.as_str());
    let names: Vec<_> = templates.chain(analysis.gates.iter().map(|gate| gate.name.as_str())).collect();
    let required = analysis.require.join(", ");
    match (names.is_empty(), required.is_empty()) {
        (false, true) => format!("analysis {}", names.join(", ")),
        (true, _) => format!("analysis requires {required}"),
        (false, false) => format!("analysis {}, requires {required}", names.join(", ")),
    }
}

fn scale(scale: &CanaryScale) -> String {
    match (scale.replicas, scale.weight) {
        (Some(1), _) => "setCanaryScale 1 pod".into(),
        (Some(replicas), _) => format!("setCanaryScale {replicas} pods"),
        (_, Some(weight)) => format!("setCanaryScale {weight} %"),
        _ => "setCanaryScale as the traffic weight".into(),
    }
}
