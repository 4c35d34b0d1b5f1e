//! Scenarios: which releases are made, what each provider would answer, what a person does, and how it has to end.

mod answers;
mod expect;
mod invented;
mod manifests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::world::{Callers, ImageBehaviour, Start, WorldConfig};
use crate::api::action::Verb;
use crate::api::common::{Duration, seconds, std_duration};

pub use answers::{Answer, Answers, CallQuality, JudgeWord, Says};
pub use expect::{Expect, Outcome};

/// The scenarios inside the program: file name and text. Their manifests are those of `examples/`.
const BUILT_IN: &[&str] = &[
    include_str!("../scenarios/three-releases.yaml"),
    include_str!("../scenarios/undecided.yaml"),
    include_str!("../scenarios/comparison.yaml"),
];

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Name.
    pub name: String,
    /// What it shows, in a sentence or two.
    pub description: String,
    /// Everything that is applied at the start but the VoiceRollout, in the file's order.
    pub manifests: Vec<Value>,
    /// The VoiceRollout, with the image it was written with.
    pub rollout: Value,
    /// The releases, the first deployment among them, in order.
    pub releases: Vec<Release>,
    /// The world around them.
    pub world: Surroundings,
}

/// One release.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// Name.
    pub name: String,
    /// Tag of the image of the agent's first container.
    pub tag: String,
    /// Time until a pod is up.
    #[serde(default = "default_start_delay")]
    pub start_delay: Duration,
    /// What becomes of its pods.
    #[serde(default)]
    pub start: Start,
    /// What the provider of each gate answers, by the gate's name.
    #[serde(default)]
    pub answers: BTreeMap<String, Answers>,
    /// What a judge with `explainAborts` says of an abort, by the gate's name.
    #[serde(default)]
    pub explanations: BTreeMap<String, String>,
    /// How its calls turn out, for gates that count them.
    #[serde(default)]
    pub quality: CallQuality,
    /// How they turn out for single gates, in place of `quality`, by the gate's name: for gates that count other things.
    #[serde(default)]
    pub counted: BTreeMap<String, CallQuality>,
    /// Somebody promotes it at every pause that has no end.
    #[serde(default)]
    pub promoted_by_hand: bool,
    /// What people do.
    #[serde(default)]
    pub actions: Vec<UserAction>,
    /// How it has to end.
    pub expect: Expect,
    /// The longest it may take.
    #[serde(default = "default_within")]
    pub within: Duration,
}

fn default_start_delay() -> Duration {
    seconds(5)
}
fn default_within() -> Duration {
    seconds(4 * 3600)
}

/// Something a person does.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserAction {
    /// When, counted from the start of the release.
    pub at: Duration,
    /// What.
    pub verb: Verb,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The world around the releases.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Surroundings {
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Time that routes and endpoints take to reach the proxies.
    #[serde(default)]
    pub propagation: Option<Duration>,
    /// Who calls; left out: nobody.
    #[serde(default)]
    pub calls: Option<CallSettings>,
}

/// Calls to every route.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallSettings {
    /// Mean time between two calls.
    pub every: Duration,
    /// Shortest call.
    pub shortest: Duration,
    /// Longest call.
    pub longest: Duration,
}

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A file cannot be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{what}: {source}")]
    Parse {
        /// The file or the scenario.
        what: String,
        /// Where and why.
        source: serde_yaml::Error,
    },
    /// What it says cannot be.
    #[error("scenario {name}: {problem}")]
    Content {
        /// The scenario.
        name: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    description: String,
    manifests: Vec<Manifest>,
    releases: Vec<Release>,
    #[serde(default)]
    world: Surroundings,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Manifest {
    Path(String),
    Inline(Value),
}

impl Scenario {
    /// The scenarios inside the program.
    ///
    /// # Errors
    /// Never in a build whose tests have passed.
    pub fn built_in() -> Result<Vec<Self>, ScenarioError> {
        let example = |path: &str| match path {
            "voice-agent.yaml" => Ok(include_str!("../../../examples/voice-agent.yaml").to_owned()),
            "comparison.yaml" => Ok(include_str!("../../../examples/comparison.yaml").to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        BUILT_IN.iter().map(|text| Self::parse(text, example)).collect()
    }

    /// Reads a file; paths of manifests in it start from its folder.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, or content that cannot be.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let read = |path: &Path| std::fs::read_to_string(path);
        let text = read(path).map_err(|source| ScenarioError::Read { path: path.display().to_string(), source })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, |manifest| read(&folder.join(manifest)))
    }

    /// Parses a scenario; `file` reads the files of manifests that it names.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, file: impl Fn(&str) -> std::io::Result<String>) -> Result<Self, ScenarioError> {
        let parsed: File = serde_yaml::from_str(text).map_err(|source| ScenarioError::Parse { what: "the scenario".into(), source })?;
        let mut manifests = Vec::new();
        for manifest in parsed.manifests {
            match manifest {
                Manifest::Inline(value) => manifests.push(value),
                Manifest::Path(path) => {
                    let text = file(&path).map_err(|source| ScenarioError::Read { path: path.clone(), source })?;
                    manifests.extend(documents(&path, &text)?);
                }
            }
        }
        let (mut rollouts, manifests): (Vec<Value>, Vec<Value>) = manifests.into_iter().partition(|m| m["kind"] == "VoiceRollout");
        let content = |problem: String| ScenarioError::Content { name: parsed.name.clone(), problem };
        let rollout = match (rollouts.pop(), rollouts.is_empty()) {
            (Some(rollout), true) => rollout,
            _ => return Err(content("the manifests have to hold exactly one VoiceRollout".into())),
        };
        let scenario = Self {
            name: parsed.name.clone(),
            description: parsed.description,
            manifests,
            rollout,
            releases: parsed.releases,
            world: parsed.world,
        };
        match scenario.problem() {
            Some(problem) => Err(content(problem)),
            None => Ok(scenario),
        }
    }

    fn problem(&self) -> Option<String> {
        let mut gates = BTreeSet::new();
        collect_gates(&self.rollout, &mut gates);
        self.manifests.iter().for_each(|m| collect_gates(m, &mut gates));
        let mut tags = BTreeSet::new();
        if self.releases.is_empty() {
            return Some("there are no releases".into());
        }
        if self.rollout.pointer("/spec/template/spec/containers/0/image").is_none() {
            return Some("the VoiceRollout's first container has no image".into());
        }
        for release in &self.releases {
            if !tags.insert(&release.tag) {
                return Some(format!("release {}: tag {} is another release's", release.name, release.tag));
            }
            let qualities = std::iter::once(&release.quality).chain(release.counted.values());
            if let Some(problem) = qualities.filter_map(CallQuality::problem).next() {
                return Some(format!("release {}, quality: {problem}", release.name));
            }
            let named = release.answers.keys().chain(release.explanations.keys()).chain(release.counted.keys());
            if let Some(gate) = named.into_iter().find(|gate| !gates.contains(*gate)) {
                let known: Vec<&str> = gates.iter().map(String::as_str).collect();
                return Some(format!("release {}: there is no gate {gate}; gates are {}", release.name, known.join(", ")));
            }
            for (gate, answers) in &release.answers {
                if let Some(problem) = answers.problem() {
                    return Some(format!("release {}, gate {gate}: {problem}", release.name));
                }
            }
        }
        None
    }

    /// Name of the VoiceRollout.
    pub fn rollout_name(&self) -> &str {
        self.rollout.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Namespace of the VoiceRollout.
    pub fn namespace(&self) -> &str {
        self.rollout.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default")
    }

    /// The VoiceRollout with a release's image.
    pub fn rollout_for(&self, release: &Release) -> Value {
        let mut rollout = self.rollout.clone();
        if let Some(image) = rollout.pointer_mut("/spec/template/spec/containers/0/image") {
            let text = image.as_str().unwrap_or_default();
            *image = json!(format!("{}:{}", repository_of(text), release.tag));
        }
        rollout
    }

    /// The release of an image.
    pub fn release_of(&self, image: &str) -> Option<&Release> {
        self.releases.iter().find(|release| release.tag == tag_of(image))
    }

    /// How the world behaves.
    pub fn world_config(&self) -> WorldConfig {
        let images = self.releases.iter().map(|release| {
            let behaviour = ImageBehaviour { start_delay: std_duration(release.start_delay), start: release.start };
            (release.tag.clone(), behaviour)
        });
        let default = WorldConfig::default();
        WorldConfig {
            seed: self.world.seed,
            propagation: self.world.propagation.map_or(default.propagation, std_duration),
            images: images.collect(),
            callers: self.world.calls.as_ref().map(|calls| Callers {
                every: std_duration(calls.every),
                shortest: std_duration(calls.shortest),
                longest: std_duration(calls.longest),
                known: None,
            }),
            ..default
        }
    }
}

/// Tag of an image; `latest` when it has none.
pub(super) fn tag_of(image: &str) -> &str {
    image.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("latest", |(_, tag)| tag)
}

fn repository_of(image: &str) -> &str {
    image.strip_suffix(tag_of(image)).and_then(|rest| rest.strip_suffix(':')).unwrap_or(image)
}

fn documents(path: &str, text: &str) -> Result<Vec<Value>, ScenarioError> {
    let parse = |document| Value::deserialize(document).map_err(|source| ScenarioError::Parse { what: path.to_owned(), source });
    let all: Result<Vec<Value>, ScenarioError> = serde_yaml::Deserializer::from_str(text).map(parse).collect();
    Ok(all?.into_iter().filter(|document| !document.is_null()).collect())
}

fn collect_gates(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let gates = map.get("gates").and_then(Value::as_array);
            names.extend(gates.into_iter().flatten().filter_map(|g| g["name"].as_str().map(Into::into)));
            map.values().for_each(|v| collect_gates(v, names));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_gates(v, names)),
        _ => {}
    }
}
