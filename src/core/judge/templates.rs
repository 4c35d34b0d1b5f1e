//! Template mining: log lines become kinds of lines with counts, by Drain (He, Zhu, Zheng, Lyu: "Drain: An Online Log
//! Parsing Approach with Fixed Depth Tree", ICWS 2017).
//!
//! A line is masked, split into words, and led through a tree: by its number of words, then by its first words. At the
//! leaf it joins the kind it is most like, whose differing words become `<*>`, or begins a new one. Memory is bounded by
//! [`Limits`]; the same lines in the same order give the same kinds.

use std::collections::HashMap;

use super::mask::mask;

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most kinds. Lines of further ones are counted as `other`.
    pub max_clusters: usize,
    /// Words that choose the branch.
    pub depth: usize,
    /// Bytes of a line that are looked at.
    pub max_line: usize,
}

/// Share of words that two lines of a kind have in common, at least (the paper's similarity threshold).
const SIMILAR: f64 = 0.5;
/// Branches of a node; further words share the branch `<*>` (the paper's maxChild).
const MAX_CHILDREN: usize = 100;
/// Kinds at one leaf; lines of further ones belong to none. Each line is compared with all of them.
const MAX_AT_LEAF: usize = 48;
/// Words of a line that are looked at.
const MAX_WORDS: usize = 200;
/// Bytes of masked lines whose kind is remembered, so that equal ones need no search.
const MEMO_BYTES: usize = 4 * 1024 * 1024;
/// In place of a word that differs.
const ANY: &str = "<*>";

/// Lines of one kind, by arm: stable, canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Words with marks and `<*>`.
    pub template: String,
    /// Lines of stable and canary.
    pub lines: [u64; 2],
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mined {
    /// Kinds, in no particular order.
    pub kinds: Vec<Kind>,
    /// Lines that belong to none, because there were too many kinds.
    pub other: [u64; 2],
    /// All lines that are not blank.
    pub lines: [u64; 2],
}

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, usize>,
    kinds: Vec<usize>,
}

struct Cluster {
    words: Vec<Box<str>>,
    /// Hash of each word; 0, which no word has, for `<*>`.
    hashes: Vec<u64>,
    lines: [u64; 2],
}

/// FNV-1a (Fowler, Noll, Vo); words that are taken for equal by chance only widen a kind's counts.
fn hash(word: &str) -> u64 {
    word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)).max(1)
}

/// Takes in lines one by one.
pub struct Miner {
    limits: Limits,
    nodes: Vec<Node>,
    /// Root for each number of words.
    roots: HashMap<usize, usize>,
    clusters: Vec<Cluster>,
    memo: HashMap<Box<str>, usize>,
    memo_bytes: usize,
    other: [u64; 2],
    lines: [u64; 2],
    masked: String,
}

impl Miner {
    /// A miner that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            nodes: Vec::new(),
            roots: HashMap::new(),
            clusters: Vec::new(),
            memo: HashMap::new(),
            memo_bytes: 0,
            other: [0; 2],
            lines: [0; 2],
            masked: String::new(),
        }
    }

    /// Takes in one line of `arm` (0 stable, 1 canary), without its line break. Blank lines count for nothing.
    pub fn line(&mut self, arm: usize, line: &str) {
        let line = clip(line.trim(), self.limits.max_line);
        if line.is_empty() {
            return;
        }
        self.lines[arm] += 1;
        let mut masked = std::mem::take(&mut self.masked);
        masked.clear();
        mask(line, &mut masked);
        let kind = match self.memo.get(masked.as_str()) {
            Some(kind) => Some(*kind),
            None => self.place(&masked),
        };
        self.masked = masked;
        match kind {
            Some(kind) => self.clusters[kind].lines[arm] += 1,
            None => self.other[arm] += 1,
        }
    }

    /// What was found.
    pub fn finish(self) -> Mined {
        let kinds = self.clusters.into_iter().map(|c| Kind { template: c.words.join(" "), lines: c.lines }).collect();
        Mined { kinds, other: self.other, lines: self.lines }
    }

    /// The kind of a masked line that is not remembered; `None` when there is no room for a new one.
    fn place(&mut self, masked: &str) -> Option<usize> {
        let words: Vec<&str> = masked.split_whitespace().take(MAX_WORDS).collect();
        let full = self.clusters.len() >= self.limits.max_clusters;
        let leaf = self.leaf(&words, !full);
        let full = full || leaf.is_some_and(|leaf| self.nodes[leaf].kinds.len() >= MAX_AT_LEAF);
        let hashes: Vec<u64> = words.iter().map(|w| hash(w)).collect();
        let kind = match leaf.and_then(|leaf| self.most_alike(leaf, &hashes)) {
            Some(kind) => {
                self.merge(kind, &words);
                Some(kind)
            }
            None if full => None,
            None => leaf.map(|leaf| self.begin(leaf, &words, hashes)),
        }?;
        if self.memo_bytes + masked.len() > MEMO_BYTES {
            self.memo.clear();
            self.memo_bytes = 0;
        }
        self.memo_bytes += masked.len() + 64;
        self.memo.insert(masked.into(), kind);
        Some(kind)
    }

    /// The leaf for these words; made where it is missing and `grow` says so.
    fn leaf(&mut self, words: &[&str], grow: bool) -> Option<usize> {
        let mut at = match self.roots.get(&words.len()) {
            Some(root) => *root,
            None if grow => {
                let root = self.node();
                self.roots.insert(words.len(), root);
                root
            }
            None => return None,
        };
        for word in words.iter().take(self.limits.depth) {
            let word = if word.contains('<') { ANY } else { word };
            at = match self.nodes[at].children.get(word).or_else(|| self.nodes[at].children.get(ANY).filter(|_| self.is_wide(at))) {
                Some(next) => *next,
                None if grow => {
                    let word = if self.is_wide(at) { ANY } else { word };
                    let next = self.node();
                    self.nodes[at].children.insert(word.into(), next);
                    next
                }
                None => return None,
            };
        }
        Some(at)
    }

    fn is_wide(&self, node: usize) -> bool {
        self.nodes[node].children.len() >= MAX_CHILDREN
    }

    fn node(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    /// The kind at a leaf that has most words in common, the older of two, if that is enough.
    #[allow(clippy::cast_precision_loss)] // at most MAX_WORDS
    fn most_alike(&self, leaf: usize, hashes: &[u64]) -> Option<usize> {
        let mut best = None;
        for kind in &self.nodes[leaf].kinds {
            let same = self.clusters[*kind].hashes.iter().zip(hashes).filter(|(a, b)| a == b).count();
            if best.is_none_or(|(most, _)| same > most) {
                best = Some((same, *kind));
            }
        }
        best.filter(|(same, _)| *same as f64 >= SIMILAR * hashes.len() as f64).map(|(_, kind)| kind)
    }

    fn merge(&mut self, kind: usize, words: &[&str]) {
        let Cluster { words: own, hashes, .. } = &mut self.clusters[kind];
        for ((own, hash), word) in own.iter_mut().zip(hashes).zip(words) {
            if own.as_ref() != *word && own.as_ref() != ANY {
                (*own, *hash) = (ANY.into(), 0);
            }
        }
    }

    fn begin(&mut self, leaf: usize, words: &[&str], hashes: Vec<u64>) -> usize {
        self.clusters.push(Cluster { words: words.iter().map(|w| (*w).into()).collect(), hashes, lines: [0; 2] });
        let kind = self.clusters.len() - 1;
        self.nodes[leaf].kinds.push(kind);
        kind
    }
}

/// The first `max` bytes of a line, or a few less so that no character is cut.
pub fn clip(line: &str, max: usize) -> &str {
    if line.len() <= max {
        return line;
    }
    let end = (0..=max).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
    &line[..end]
}

/// A kind whose frequency differs between the arms.
#[derive(Clone, Debug, PartialEq)]
pub struct Differing {
    /// Index in [`Mined::kinds`].
    pub kind: usize,
    /// Lines for 1,000 units of exposure, stable and canary.
    pub per_thousand: [f64; 2],
    /// How far the canary's count lies from what equal rates would give, in standard deviations; below 0 it is stable
    /// that has more.
    pub deviation: f64,
}

/// Standard deviations from which a difference is shown.
const SHOWN: f64 = 2.0;
/// Times from which a difference is shown.
const RATIO: f64 = 1.5;

/// The kinds that are new or much more frequent in one arm, most striking first, at most `show` an arm. `exposure` is the
/// number of calls, or of lines, of stable and canary.
///
/// Given that both arms together have n such lines, at equal rates the canary's share of them is binomial with its share
/// of the exposure.
#[allow(clippy::cast_precision_loss)] // counts of lines
pub fn differing(mined: &Mined, exposure: [f64; 2], show: usize) -> Vec<Differing> {
    let total = exposure[0] + exposure[1];
    if !(exposure[0] > 0.0 && exposure[1] > 0.0 && total.is_finite()) {
        return Vec::new();
    }
    let share = exposure[1] / total;
    let all = mined.kinds.iter().enumerate().map(|(kind, k)| {
        let lines = [k.lines[0] as f64, k.lines[1] as f64];
        let n = lines[0] + lines[1];
        let per_thousand = [1000.0 * lines[0] / exposure[0], 1000.0 * lines[1] / exposure[1]];
        Differing { kind, per_thousand, deviation: (lines[1] - n * share) / (n * share * (1.0 - share)).sqrt().max(f64::MIN_POSITIVE) }
    });
    let strikes = |d: &Differing| {
        let [a, b] = d.per_thousand;
        d.deviation.abs() >= SHOWN && a.max(b) >= RATIO * a.min(b)
    };
    let mut found: Vec<Differing> = all.filter(strikes).collect();
    found.sort_by(|a, b| {
        let text = |d: &Differing| mined.kinds[d.kind].template.as_str();
        b.deviation.abs().total_cmp(&a.deviation.abs()).then_with(|| text(a).cmp(text(b)))
    });
    let mut left = [show; 2];
    found.retain(|d| {
        let side = usize::from(d.deviation > 0.0);
        let room = left[side] > 0;
        left[side] -= usize::from(room);
        room
    });
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { max_clusters: 100, depth: 2, max_line: 1000 };

    fn mine(limits: Limits, stable: &[&str], canary: &[&str]) -> Mined {
        let mut miner = Miner::new(limits);
        stable.iter().for_each(|l| miner.line(0, l));
        canary.iter().for_each(|l| miner.line(1, l));
        miner.finish()
    }

    fn sorted(mined: &Mined) -> Vec<(String, [u64; 2])> {
        let mut all: Vec<_> = mined.kinds.iter().map(|k| (k.template.clone(), k.lines)).collect();
        all.sort();
        all
    }

    #[test]
    fn lines_of_a_kind_come_together() {
        let stable = ["call 1 started by alice", "call 2 started by bob", "tool book_table took 120 ms", "", "  "];
        let canary = [
            "call 3 started by carol",
            "tool book_table took 90 ms",
            "tool call failed: timeout after 5 s",
            "tool call failed: refused after 1 s",
        ];
        let mined = mine(LIMITS, &stable, &canary);
        assert_eq!(
            sorted(&mined),
            [
                ("call <num> started by <*>".to_owned(), [2, 1]),
                ("tool book_table took <num> ms".to_owned(), [1, 1]),
                ("tool call failed: <*> after <num> s".to_owned(), [0, 2]),
            ]
        );
        assert_eq!((mined.lines, mined.other), ([3, 4], [0, 0]));
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_lost() {
        let limits = Limits { max_clusters: 10, depth: 2, max_line: 40 };
        let words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
        let lines: Vec<String> =
            (0..1000).map(|n| format!("{} {} {} {}", words[n % 10], words[n / 10 % 10], words[n / 100], "x".repeat(n % 90))).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mined = mine(limits, &lines, &lines[..500]);
        assert_eq!(mined.lines, [1000, 500]);
        assert!(mined.kinds.len() <= 10 && mined.kinds.iter().all(|k| k.template.len() <= 40 + 3 * 10));
        let counted = |arm: usize| mined.kinds.iter().map(|k| k.lines[arm]).sum::<u64>() + mined.other[arm];
        assert_eq!((counted(0), counted(1)), (1000, 500));
        assert!(mined.other[0] > 0);
    }

    #[test]
    fn wide_nodes_share_a_branch() {
        // Names without digits as the first word: after a hundred branches they fall together.
        let name = |n: usize| {
            format!("{}{}", char::from(b'a' + u8::try_from(n / 26 % 26).unwrap()), char::from(b'a' + u8::try_from(n % 26).unwrap()))
        };
        let lines: Vec<String> = (0..600).map(|n| format!("{} joined the call now", name(n))).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mined = mine(Limits { max_clusters: 1000, ..LIMITS }, &lines, &[]);
        assert!(mined.kinds.len() <= MAX_CHILDREN + 1, "{}", mined.kinds.len());
        assert!(mined.kinds.iter().any(|k| k.template == "<*> joined the call now" && k.lines[0] == 500));
    }

    #[test]
    fn new_and_more_frequent_kinds_are_shown_by_exposure() {
        let kind = |template: &str, stable, canary| Kind { template: template.into(), lines: [stable, canary] };
        let mined = Mined {
            kinds: vec![kind("same rate", 1900, 100), kind("new", 0, 3), kind("more", 100, 30), kind("less", 500, 2), kind("noise", 10, 1)],
            ..Mined::default()
        };
        let found = differing(&mined, [1900.0, 100.0], 10);
        let names: Vec<&str> = found.iter().map(|d| mined.kinds[d.kind].template.as_str()).collect();
        assert_eq!(names, ["more", "new", "less"]);
        let more = &found[0];
        assert!((more.per_thousand[1] - 300.0).abs() < 1e-9 && (more.per_thousand[0] - 100_000.0 / 1900.0).abs() < 1e-9);
        // 130 lines, 5 % of them expected: (30 - 6.5) / sqrt(130 * 0.05 * 0.95).
        assert!((more.deviation - 23.5 / 6.175_f64.sqrt()).abs() < 1e-9);
        assert_eq!(differing(&mined, [1900.0, 100.0], 1).len(), 2, "one an arm");
        assert!(differing(&mined, [0.0, 100.0], 9).is_empty() && differing(&mined, [f64::NAN, 1.0], 9).is_empty());
    }

    proptest! {
        #[test]
        fn any_lines_are_counted_once(lines in prop::collection::vec(("\\PC{0,40}", any::<bool>()), 0..60), clusters in 1..20_usize) {
            let mut miner = Miner::new(Limits { max_clusters: clusters, depth: 3, max_line: 32 });
            for (line, canary) in &lines {
                miner.line(usize::from(*canary), line);
            }
            let mined = miner.finish();
            for arm in 0..2 {
                let counted = mined.kinds.iter().map(|k| k.lines[arm]).sum::<u64>() + mined.other[arm];
                prop_assert_eq!(counted, mined.lines[arm]);
            }
            prop_assert!(mined.kinds.len() <= clusters);
        }
    }
}
