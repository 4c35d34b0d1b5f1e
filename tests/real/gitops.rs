//! What scripts without the plugin wait for, as the README has it.

use voicerollout::api::action::ActionState;
use voicerollout::api::status::Phase;

use crate::agent::{NAME, Version};
use crate::people::command;
use crate::stack::Error;
use crate::{gates, run};

const HEALTHY: &str = "kubectl wait voicerollout/voice-agent --for=condition=Healthy";
const PAUSED: &str = "kubectl wait voicerollout/voice-agent --for=jsonpath";

/// The command of the README that begins with these words, for the agent of a test.
fn recipe(begin: &str, namespace: &str) -> Vec<String> {
    let readme = include_str!("../../README.md");
    let line = readme.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("README has no {begin:?}"));
    let command = line.split('#').next().unwrap_or_default().replace("voice-agent", NAME);
    let words = command.split_whitespace().skip(1).map(|word| word.replace('\'', ""));
    ["-n", namespace].map(str::to_owned).into_iter().chain(words).collect()
}

#[test]
fn a_script_waits_with_kubectl_for_a_pause_and_for_the_newest_version_to_be_stable() {
    run("waits", async |mut agent| {
        let (stack, namespace) = (agent.world.stack, agent.ns.name.clone());
        let wait = async |begin: &str| {
            let words = recipe(begin, &namespace);
            stack.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        agent.start(gates::by_hand(&[25])).await?;
        // The version before is stable still: a status of the time before the edit must not count.
        agent.set_version(&Version::good("v2"));
        agent.ns.apply(&agent.manifest.to_string()).await?;
        let promoted = async {
            let waited = wait(HEALTHY).await?;
            Ok((waited, agent.status().await?))
        };
        let steps = async {
            wait(PAUSED).await?;
            let second = agent.paused_at(25).await?.canary_revision.unwrap_or_default();
            assert_eq!(command(&agent, "promote").await?.0, ActionState::Applied);
            Ok::<_, Error>(second)
        };
        let ((waited, status), second) = futures::future::try_join(promoted, steps).await?;
        assert!(waited.contains("condition met"), "{waited}");
        assert_eq!((status.phase, status.stable_revision), (Phase::Healthy, Some(second)));
        Ok(())
    });
}
