//! The custom resources as data.
#![allow(clippy::duplicated_attributes)] // print columns repeat their keys by design

pub mod action;
pub mod analysis;
pub mod common;
pub mod compare;
pub mod comparison;
pub mod conditions;
pub mod crds;
pub mod evidence;
pub mod judge;
pub mod notification;
pub mod outbox;
pub mod paired;
pub mod proof;
pub mod provider;
mod revision;
pub mod rollout;
pub mod run;
pub mod sessions;
pub mod status;
pub mod stickiness;
pub mod template;
pub mod traces;
pub mod web;

pub use action::{VoiceRolloutAction, VoiceRolloutActionSpec};
pub use outbox::{VoiceRolloutOutbox, VoiceRolloutOutboxSpec};
pub use rollout::{VoiceRollout, VoiceRolloutSpec};
pub use run::{VoiceAnalysisRun, VoiceAnalysisRunSpec};
pub use status::VoiceRolloutStatus;
pub use template::{ClusterVoiceAnalysisTemplate, VoiceAnalysisTemplate};
