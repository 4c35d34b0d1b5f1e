//! The rule of `spec.rollbackWindow`: which revision may come back without steps.

use std::fmt;

use crate::api::status::RevisionStatus;

/// Why a revision goes through its steps again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// It, or the stable revision, is not known any more.
    Unknown,
    /// It was aborted since.
    Aborted,
    /// It never was stable.
    NeverStable,
    /// There is no window.
    NoWindow,
    /// More revisions lie between than the window has.
    TooFar {
        /// Newer ones, up to the stable one.
        between: usize,
        /// `spec.rollbackWindow.revisions`.
        window: usize,
    },
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "it is not known any more"),
            Self::Aborted => write!(f, "it was aborted"),
            Self::NeverStable => write!(f, "it was never stable"),
            Self::NoWindow => write!(f, "spec.rollbackWindow is not set"),
            Self::TooFar { between, window } => write!(f, "it lies {between} revisions back and rollbackWindow is {window}"),
        }
    }
}

/// Whether `target` may come back without steps: it was stable, it was not aborted since, and few enough revisions lie
/// between it and the stable one.
///
/// # Errors
/// Why it may not.
pub fn may_return(revisions: &[RevisionStatus], stable: Option<&str>, target: &str, window: i32) -> Result<(), Steps> {
    let of = |hash: &str| revisions.iter().find(|r| r.hash == hash);
    let (Some(revision), Some(stable)) = (of(target), stable.and_then(of)) else { return Err(Steps::Unknown) };
    let between = revisions.iter().filter(|r| r.number > revision.number && r.number <= stable.number).count();
    let window = usize::try_from(window).unwrap_or(0);
    match () {
        () if revision.aborted => Err(Steps::Aborted),
        () if !revision.was_stable => Err(Steps::NeverStable),
        () if window == 0 => Err(Steps::NoWindow),
        () if between > window => Err(Steps::TooFar { between, window }),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_was_stable_and_not_aborted_and_few_enough_lie_between() {
        let mut all: Vec<RevisionStatus> =
            (1..=4).map(|n| RevisionStatus { hash: format!("r{n}"), number: n, was_stable: n != 3, ..RevisionStatus::default() }).collect();
        let may = |all: &[RevisionStatus], target: &str, window| may_return(all, Some("r4"), target, window);
        assert_eq!((may(&all, "r2", 2), may(&all, "r1", 3)), (Ok(()), Ok(())));
        assert_eq!(may(&all, "r1", 2), Err(Steps::TooFar { between: 3, window: 2 }));
        assert_eq!((may(&all, "r2", 0), may(&all, "r2", -1)), (Err(Steps::NoWindow), Err(Steps::NoWindow)));
        assert_eq!((may(&all, "r3", 9), may(&all, "r9", 9)), (Err(Steps::NeverStable), Err(Steps::Unknown)));
        assert_eq!(may_return(&all, None, "r2", 9), Err(Steps::Unknown));
        all[1].aborted = true;
        assert_eq!(may(&all, "r2", 9), Err(Steps::Aborted));
    }
}
