//! `dunlin maintenance` and `dunlin rebalance`.

use dunlin_api::{
    Maintenance, MaintenanceRequest, NamedWindow, NodeUse, PlannedMove, RebalancePlan,
    StayingService,
};
use dunlin_state::model::{Opens, Window};

use super::*;

fn nightly() -> Window {
    Window {
        opens: Opens::Cron {
            cron: "0 2 * * *".to_owned(),
            timezone: "Europe/Berlin".to_owned(),
        },
        lasts_ms: 2 * 3_600_000,
    }
}

#[tokio::test]
async fn windows_are_added_listed_and_removed() {
    let mut worked_on = node("n1", 1);
    let once = Window {
        opens: Opens::At(1_796_086_800_000),
        lasts_ms: 7_200_000,
    };
    let named = |window: &Window| NamedWindow {
        id: window.id(),
        window: window.clone(),
    };
    worked_on.maintenance = Maintenance {
        windows: vec![named(&nightly()), named(&once)],
        until: Some(1_796_094_000_000),
        next: Some(1_796_173_200_000),
    };
    let nodes = NodeList {
        nodes: vec![worked_on, node("n2", 2)],
    };
    let daemon = fake(move |line| match line.starts_with("POST") {
        true => Answer::json(&ChangeResponse { changed: true }),
        false => Answer::json(&nodes),
    });
    let ran = dunlin(&daemon, &["maintenance", "ls"]).await;
    let (first, second) = (nightly().id(), once.id());
    assert_eq!(
        ran.out,
        format!(
            "\
NODE  ID      OPENS                    LASTS  STATE
n1    {first}  0 2 * * * Europe/Berlin  2h     in maintenance until 2026-12-01 03:00 UTC
n1    {second}  2026-12-01 01:00 UTC     2h     in maintenance until 2026-12-01 03:00 UTC
"
        )
    );
    let words = [
        "maintenance",
        "add",
        "n1",
        "--at",
        "2026-12-01 02:00",
        "--for",
        "2h",
        "--time-zone",
        "Europe/Berlin",
    ];
    assert_eq!(
        dunlin(&daemon, &words).await.out,
        "windows of n1: changed\n"
    );
    dunlin(&daemon, &["maintenance", "rm", "n1", &first]).await;
    let asked = daemon.asked();
    let sent: Vec<MaintenanceRequest> = asked
        .iter()
        .filter(|a| a.line == "POST /v1/nodes/n1/maintenance")
        .map(|a| serde_json::from_str(&a.body).unwrap())
        .collect();
    assert_eq!(sent[0].add, [once]);
    assert_eq!(sent[1].remove, [first]);
}

#[tokio::test]
async fn windows_that_cannot_be_kept_are_not_sent() {
    for (words, expected) in [
        (&["--at", "tomorrow", "--for", "2h"][..], "no date and time"),
        (&["--cron", "0 0 30 2 *", "--for", "2h"], "never fires"),
        (&["--cron", "0 * * * *", "--for", "1h"], "never close"),
        (&["--cron", "0 2 * * *", "--for", "1s"], "from a minute"),
    ] {
        let all: Vec<&str> = ["maintenance", "add", "n1"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        let daemon = fake(|_| Answer::json(&ChangeResponse { changed: true }));
        let ran = dunlin(&daemon, &all).await;
        assert_eq!(ran.exit, Exit::Usage, "{words:?}");
        assert!(ran.err.contains(expected), "{words:?}: {}", ran.err);
        assert!(daemon.asked().is_empty());
    }
}

#[tokio::test]
async fn what_would_be_moved_is_shown() {
    let plan = RebalancePlan {
        automatic: true,
        moves: vec![PlannedMove {
            service: "web".parse().unwrap(),
            slot: Slot::Replica(3),
            from: "n1".to_owned(),
            to: "n2".to_owned(),
            why: "its node is fuller by 25 points".to_owned(),
        }],
        nodes: vec![
            NodeUse {
                name: "n1".to_owned(),
                replicas_before: 4,
                replicas_after: 3,
                full_before_ppm: 500_000,
                full_after_ppm: 375_000,
            },
            NodeUse {
                name: "n2".to_owned(),
                replicas_before: 0,
                replicas_after: 1,
                full_before_ppm: 0,
                full_after_ppm: 125_000,
            },
        ],
        stays: vec![StayingService {
            service: "db".parse().unwrap(),
            why: "it says 'rebalance: false'".to_owned(),
        }],
        ..RebalancePlan::default()
    };
    let ran = answered(&plan, &["rebalance", "--plan"]).await;
    assert_eq!(
        ran.out,
        "\
NAME   FROM  TO  WHY
web.3  n1    n2  its node is fuller by 25 points

NODE  REPLICAS  THEN  FULL  THEN
n1    4         3     50%   37%
n2    0         1     0%    12%

SERVICE  STAYS BECAUSE
db       it says 'rebalance: false'
1 replicas would move; the fullest and the emptiest node differ by 50%, then by 25%; they move by themselves, slowly, where much is gained
"
    );
}
