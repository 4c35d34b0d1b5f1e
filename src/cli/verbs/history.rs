//! `history`: the revisions of a release.

use std::collections::BTreeMap;
use std::io::Write;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Session, data, request, say};
use crate::api::VoiceRollout;
use crate::api::common::{REVISION_LABEL, ROLLOUT_LABEL};
use crate::cli::args::Output;
use crate::cli::error::CliError;
use crate::cli::history_view;

impl Session {
    /// Lists the revisions that exist, or every decision that is kept.
    ///
    /// # Errors
    /// No such rollout, or no answer. Without the right to see ReplicaSets images and ages are left out.
    pub async fn history(&self, name: &str, decisions: bool, output: Option<Output>, out: &mut impl Write) -> Result<(), CliError> {
        let rollout = self.find(name).await?;
        let status = rollout.status.clone().unwrap_or_default();
        if decisions {
            return match output {
                Some(output) => data(out, output, &status.decisions),
                None => say(out, &history_view::decisions(&status.decisions, self.paint)),
            };
        }
        let (sets, note) = match self.replica_sets(&rollout).await {
            Ok(sets) => (sets, None),
            Err(error @ CliError::Forbidden { .. }) => (BTreeMap::new(), Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let entries = history_view::entries(&status, &sets);
        if let Some(output) = output {
            return data(out, output, &entries);
        }
        say(out, &history_view::render(&entries, Timestamp::now(), self.paint))?;
        note.map_or(Ok(()), |note| say(out, &format!("images and ages are not shown: {note}\n")))
    }

    /// The rollout's ReplicaSets by revision hash.
    pub(super) async fn replica_sets(&self, rollout: &VoiceRollout) -> Result<BTreeMap<String, ReplicaSet>, CliError> {
        let (name, uid) = (rollout.name_any(), rollout.uid());
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&format!("{ROLLOUT_LABEL}={name}"));
        let sets = request(format!("list the ReplicaSets of VoiceRollout {name}"), api.list(&params)).await?;
        let ours = |set: &ReplicaSet| set.owner_references().iter().any(|o| Some(&o.uid) == uid.as_ref());
        let hash = |set: ReplicaSet| Some((set.labels().get(REVISION_LABEL)?.clone(), set));
        Ok(sets.into_iter().filter(ours).filter_map(hash).collect())
    }
}
