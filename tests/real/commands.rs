//! Commands of people, and who may give them.

use voicerollout::api::action::ActionState;
use voicerollout::api::status::Phase;

use crate::agent::{NAME, Version};
use crate::people::{Person, action, answer, command};
use crate::{gates, run};

#[test]
fn a_person_ends_an_endless_pause_with_kubectl() {
    run("promote", async |mut agent| {
        agent.start(gates::by_hand(&[25, 50])).await?;
        let operator = Person::new(&agent, "olga", &["command"]).await?;
        let early = operator.says(&["promote"]).await?;
        assert!(!early.ok && early.text.contains("no release is under way"), "{early:?}");
        let second = agent.release(&Version::good("v2")).await?;
        for weight in [25, 50] {
            agent.paused_at(weight).await?;
            let said = operator.says(&["promote", "--reason", "looks fine"]).await?;
            assert!(said.ok && said.text.contains(&second), "{said:?}");
        }
        let status = agent.promoted(&second).await?;
        let by = status.decisions.iter().filter(|d| d.decision == "Promoted").filter_map(|d| d.by.clone()).collect::<Vec<_>>();
        assert_eq!(by, [operator.user.clone(), operator.user.clone()]);
        Ok(())
    });
}

#[test]
fn a_person_aborts_a_release_with_kubectl_and_retries_it() {
    run("abort", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        let operator = Person::new(&agent, "olga", &["command"]).await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        let said = operator.says(&["abort", "--reason", "callers complain"]).await?;
        assert!(said.ok, "{said:?}");
        let status = agent.phase(Phase::Degraded).await?;
        let abort = status.abort.unwrap();
        assert_eq!((abort.by, abort.weight, abort.revision.as_str()), (Some(operator.user.clone()), 25, second.as_str()));
        assert!(abort.reason.contains("callers complain"), "{}", abort.reason);
        assert_eq!(agent.weight().await?, 0);
        let shown = operator.says(&["status"]).await?;
        assert!(shown.ok && shown.text.contains("callers complain"), "{shown:?}");

        let said = operator.says(&["retry"]).await?;
        assert!(said.ok, "{said:?}");
        let again = agent.paused_at(25).await?;
        assert_eq!(again.attempt, 2);
        command(&agent, "promote").await?;
        agent.promoted(&second).await?;
        assert_eq!(log.so_far(), [0, 25, 0, 25, 100, 0]);
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

#[test]
fn an_aborted_release_stays_aborted_and_a_fresh_attempt_gets_fresh_evidence() {
    run("retry", async |mut agent| {
        agent.gates(&[gates::judge(&agent)]).await?;
        agent.world.set_judge(&agent.model(), "fail").await?;
        agent.start(gates::gated(&[50])).await?;
        let _traffic = agent.calls(20);
        let second = agent.release(&Version::good("v2")).await?;
        agent.phase(Phase::Degraded).await?;
        agent.world.set_judge(&agent.model(), "pass").await?;
        let (state, message) = command(&agent, "promote").await?;
        assert_eq!(state, ActionState::Refused, "{message}");
        assert!(message.contains("was aborted") && message.contains("retry"), "{message}");
        assert_eq!(agent.weight().await?, 0);
        assert_eq!(command(&agent, "retry").await?.0, ActionState::Applied);
        let status = agent.promoted(&second).await?;
        assert_eq!(status.attempt, 2);
        assert_eq!(agent.world.judge_requests(&agent.model()).await?, 2, "a verdict for each attempt");
        Ok(())
    });
}

#[test]
fn a_paused_release_stands_still_until_it_is_resumed() {
    run("pause", async |mut agent| {
        agent.start(gates::by_hand(&[25, 50])).await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        assert_eq!(command(&agent, "pause").await?.0, ActionState::Applied);
        let (state, message) = command(&agent, "promote").await?;
        assert!(state == ActionState::Refused && message.contains("resume"), "{message}");
        assert_eq!(command(&agent, "resume").await?.0, ActionState::Applied);
        assert_eq!(command(&agent, "promoteFull").await?.0, ActionState::Applied);
        let status = agent.promoted(&second).await?;
        assert!(
            status.decisions.iter().any(|d| d.decision == "PromotedFull" && d.by.as_deref() == Some("admin")),
            "{:?}",
            status.decisions
        );
        Ok(())
    });
}

#[test]
fn a_command_takes_rights_and_its_authors_own_name() {
    run("rights", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;

        let guest = Person::new(&agent, "guest", &["view"]).await?;
        let seen = guest.says(&["status"]).await?;
        assert!(seen.ok, "{seen:?}");
        let refused = guest.says(&["abort"]).await?;
        assert!(!refused.ok && refused.text.contains("cannot create resource \"voicerolloutactions\""), "{refused:?}");

        let operator = Person::new(&agent, "olga", &["command"]).await?;
        for by in [Some("system:serviceaccount:kube-system:somebody"), None] {
            let forged = action("forged-", "abort", &second, by).to_string();
            let refused = operator.kubectl(&["create", "-f", "-"], Some(&forged)).await?;
            assert!(!refused.ok && refused.text.contains("must be your own user name"), "{refused:?}");
        }
        let edited = operator.kubectl(&["scale", "voicerollout", NAME, "--replicas=0"], None).await?;
        assert!(!edited.ok && edited.text.contains("forbidden"), "{edited:?}");
        assert_eq!(agent.weight().await?, 25, "nothing of it had an effect");

        let stale = action("stale-", "abort", "0123456789", Some(&operator.user)).to_string();
        let made = operator.kubectl(&["create", "-o", "name", "-f", "-"], Some(&stale)).await?;
        let name = made.text.trim().rsplit('/').next().unwrap_or_default().to_owned();
        let status = answer(&agent, &name).await?;
        assert!(status.state == Some(ActionState::Refused) && status.message.contains("is not the newest one"), "{status:?}");
        assert_eq!(agent.weight().await?, 25);
        Ok(())
    });
}
