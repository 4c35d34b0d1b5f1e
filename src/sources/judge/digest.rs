//! Many log lines in little memory: kinds of lines for both arms, and a sample of transcripts.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::shares::clip;
use crate::api::evidence::{EvidenceLogs, EvidenceTemplates, EvidenceTranscripts};
use crate::core::judge::templates::{Differing, Limits, Mined, Miner, differing};
use crate::sources::SourceError;
use crate::sources::redact::{self, Known};

/// Longest template that is shown, in characters.
const MAX_TEMPLATE: usize = 300;

/// Takes in the lines of both arms.
pub struct Digest {
    templates: Option<Miner>,
    transcripts: Option<Sampler>,
    known: Known,
    cut: bool,
}

/// What the lines come to.
pub struct Summary {
    mined: Mined,
    samples: [Vec<String>; 2],
    known: Known,
    /// Not all lines were read.
    cut: bool,
}

/// Kinds of lines as they are shown.
pub struct Shown {
    /// What the frequencies are for a thousand of.
    pub per: &'static str,
    /// Lines of stable and canary.
    pub lines: [u64; 2],
    /// Entries, most striking first.
    pub kinds: Vec<Value>,
}

impl Digest {
    /// A digest, the lines a pod and the bytes an arm that it wants to see; `None` when it has nothing to do.
    pub fn new(wanted: &EvidenceLogs, known: Known) -> Option<(Self, i32, usize)> {
        let read = |t: &EvidenceTemplates| (t.tail_lines, usize::try_from(t.read_bytes).unwrap_or(0));
        let (tail, bytes) = match (&wanted.templates, &wanted.transcripts) {
            (Some(templates), _) => read(templates),
            (None, Some(_)) => (20_000, 8 * 1024 * 1024),
            (None, None) => return None,
        };
        let templates = wanted.templates.as_ref().map(|t| {
            let of = |n: i32| usize::try_from(n).unwrap_or(1);
            Miner::new(Limits { max_clusters: of(t.max_clusters), depth: of(t.depth), max_line: of(t.max_line) })
        });
        let transcripts = wanted.transcripts.clone().map(Sampler::new);
        Some((Self { templates, transcripts, known, cut: false }, tail, bytes))
    }

    /// Takes in a line of `arm`: 0 stable, 1 canary.
    pub fn line(&mut self, arm: usize, line: &str) {
        if let Some(transcripts) = &mut self.transcripts {
            transcripts.line(arm, line, &self.known);
        }
        if let Some(templates) = &mut self.templates {
            templates.line(arm, &redact::for_mining(line, &self.known));
        }
    }

    /// Notes whether all lines of an arm were read.
    pub fn read(&mut self, complete: bool) {
        self.cut |= !complete;
    }

    /// What it comes to.
    ///
    /// # Errors
    /// Transcripts are asked for and an arm has none.
    pub fn finish(self) -> Result<Summary, SourceError> {
        let samples = match self.transcripts {
            None => [Vec::new(), Vec::new()],
            Some(sampler) => sampler.finish()?,
        };
        let mined = self.templates.map(Miner::finish).unwrap_or_default();
        Ok(Summary { mined, samples, known: self.known, cut: self.cut })
    }
}

impl Summary {
    /// Whether some lines were left unread because of `readBytes`.
    pub fn cut(&self) -> bool {
        self.cut
    }

    /// Kinds of lines that differ between the arms, by calls where their numbers are known and by lines where not.
    pub fn templates(&self, calls: Option<[f64; 2]>, show: usize) -> Shown {
        #[allow(clippy::cast_precision_loss)] // counts of lines
        let lines = self.mined.lines.map(|n| n as f64);
        // What was not read to its end does not belong to all calls.
        let (exposure, per) = match calls.filter(|_| !self.cut) {
            Some(calls) => (calls, "calls"),
            None => (lines, "lines"),
        };
        let kinds = differing(&self.mined, exposure, show).iter().map(|d| self.kind(d)).collect();
        Shown { per, lines: self.mined.lines, kinds }
    }

    fn kind(&self, differing: &Differing) -> Value {
        let kind = &self.mined.kinds[differing.kind];
        let text = redact::line(&redact::redact(&kind.template, &self.known), MAX_TEMPLATE);
        let arm = |i: usize| json!({"lines": kind.lines[i], "perThousand": rounded(differing.per_thousand[i])});
        json!({"template": text, "stable": arm(0), "canary": arm(1)})
    }

    /// Redacted transcripts of stable and canary.
    pub(super) fn transcripts(&self) -> [Vec<Value>; 2] {
        self.samples.clone().map(|texts| texts.into_iter().map(Value::from).collect())
    }
}

/// Three digits are enough for a model.
fn rounded(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}

/// Keeps the transcripts whose hashes are smallest: any of them is as likely as another, and the same ones are kept
/// again whatever the order.
struct Sampler {
    wanted: EvidenceTranscripts,
    /// As it stands in JSON.
    needle: String,
    kept: [BTreeMap<[u8; 8], String>; 2],
}

impl Sampler {
    fn new(wanted: EvidenceTranscripts) -> Self {
        let needle = Value::from(wanted.field.as_str()).to_string();
        Self { wanted, needle, kept: [BTreeMap::new(), BTreeMap::new()] }
    }

    fn line(&mut self, arm: usize, line: &str, known: &Known) {
        if !line.contains(&self.needle) {
            return;
        }
        let fields = line.find('{').and_then(|at| serde_json::from_str::<BTreeMap<String, Value>>(&line[at..]).ok());
        let Some(Value::String(text)) = fields.and_then(|mut f| f.remove(&self.wanted.field)) else { return };
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut rank = [0_u8; 8];
        rank.copy_from_slice(&hash[..8]);
        let (kept, most) = (&mut self.kept[arm], usize::try_from(self.wanted.sample).unwrap_or(0));
        if kept.len() >= most && kept.last_key_value().is_none_or(|(last, _)| *last <= rank) {
            return;
        }
        let bytes = usize::try_from(self.wanted.max_bytes).unwrap_or(0);
        kept.insert(rank, clip(&redact::redact(&text, known).replace('\n', " "), bytes));
        if kept.len() > most {
            kept.pop_last();
        }
    }

    fn finish(self) -> Result<[Vec<String>; 2], SourceError> {
        if let Some(arm) = self.kept.iter().position(BTreeMap::is_empty) {
            let arm = ["stable", "canary"][arm];
            let field = &self.wanted.field;
            return Err(SourceError::new(format!("judge evidence: no log line of {arm} has the field {field:?} that transcripts names")));
        }
        Ok(self.kept.map(|k| k.into_values().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fields: Value) -> Digest {
        let wanted: EvidenceLogs = serde_json::from_value(fields).unwrap();
        Digest::new(&wanted, Known::default()).unwrap().0
    }

    #[test]
    fn kinds_are_counted_by_calls_and_redacted() {
        let mut digest = digest(json!({"templates": {}}));
        for n in 0..90 {
            digest.line(0, &format!("call {n} ok"));
        }
        for n in 0..10 {
            digest.line(1, &format!("call {n} ok"));
            digest.line(1, &format!(r#"booking failed for "lk.pii.name": "Bob Smith" after {n} tries, write to bob@example.com"#));
        }
        let summary = digest.finish().unwrap();
        let shown = summary.templates(Some([900.0, 100.0]), 10);
        assert_eq!((shown.per, shown.lines), ("calls", [90, 20]));
        let expected = json!({"template": "booking failed for \"lk.pii.name\": \"[redacted]\" after <num> tries, write to <email>",
            "stable": {"lines": 0, "perThousand": 0.0}, "canary": {"lines": 10, "perThousand": 100.0}});
        assert_eq!(shown.kinds, [expected]);
        assert_eq!(summary.templates(None, 10).per, "lines");
    }

    #[test]
    fn what_was_not_read_to_the_end_is_counted_by_lines() {
        let mut digest = digest(json!({"templates": {}}));
        digest.line(0, "a");
        digest.line(1, "b");
        digest.read(false);
        let summary = digest.finish().unwrap();
        assert_eq!((summary.cut(), summary.templates(Some([1.0, 1.0]), 9).per), (true, "lines"));
    }

    #[test]
    fn transcripts_are_a_redacted_sample_that_does_not_depend_on_order() {
        let said = |n: usize| format!(r#"{{"level":"info","said":"turn {n}: write to bob@example.com\nplease"}}"#);
        let sample = |order: &mut dyn Iterator<Item = usize>| {
            let mut digest = digest(json!({"transcripts": {"field": "said", "sample": 3}}));
            order.for_each(|n| digest.line(1, &said(n)));
            digest.line(1, r#"{"unsaid":"x"}"#);
            digest.line(0, &said(7));
            digest.finish().unwrap().transcripts()
        };
        let [stable, canary] = sample(&mut (0..100));
        assert_eq!(stable, [json!("turn 7: write to [email] please")]);
        assert_eq!(canary.len(), 3);
        assert_eq!(sample(&mut (0..100).rev())[1], canary);
    }

    #[test]
    fn transcripts_that_are_missing_are_an_error() {
        let mut digest = digest(json!({"transcripts": {"field": "said"}}));
        digest.line(0, r#"{"said":"x"}"#);
        let error = digest.finish().err().unwrap().message;
        assert!(error.contains("no log line of canary has the field \"said\""), "{error}");
    }
}
