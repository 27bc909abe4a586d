//! `dunlin plan`.

use std::io::Write;

use super::*;

fn slot(index: u32, step: PlannedStep, node: Option<&str>) -> PlannedSlot {
    PlannedSlot {
        slot: Slot::Replica(index),
        step,
        node: None,
        node_name: node.map(str::to_owned),
        from: None,
        ousts: vec![],
        data: vec![],
    }
}

fn bound(mut slot: PlannedSlot, volume: &str, begins: bool) -> PlannedSlot {
    let unused = if begins {
        vec![]
    } else {
        vec!["n3".to_owned()]
    };
    slot.data.push(PlannedVolume {
        volume: volume.parse().unwrap(),
        node_name: slot.node_name.clone().unwrap(),
        begins,
        unused,
    });
    slot
}

fn spec(image: &str) -> dunlin_state::model::ServiceSpec {
    dunlin_state::model::ServiceSpec {
        image: image.to_owned(),
        ..Default::default()
    }
}

fn foretold() -> DeployPlan {
    let changed = PlannedService {
        service: "web".parse().unwrap(),
        change: PlannedChange::Update,
        before: Some(spec("nginx:1")),
        after: spec("nginx:2"),
        scale_before: Some(1),
        scale_after: 3,
        revision: "abc".to_owned(),
        slots: vec![
            bound(slot(0, PlannedStep::Update, Some("n1")), "data", false),
            bound(slot(1, PlannedStep::Start, Some("n2")), "new", true),
            slot(2, PlannedStep::Nowhere, None),
        ],
        refusals: vec![NodeVerdict {
            node: node("n1", 1).id,
            name: "n1".to_owned(),
            verdict: Verdict::Refused,
            score: None,
            reasons: vec![RefusalReason {
                text: "is cordoned".to_owned(),
                fix: Some("uncordon it".to_owned()),
            }],
        }],
    };
    let same = PlannedService {
        service: "db".parse().unwrap(),
        change: PlannedChange::Unchanged,
        before: Some(spec("pg")),
        after: spec("pg"),
        scale_before: Some(1),
        scale_after: 1,
        revision: "def".to_owned(),
        slots: vec![slot(0, PlannedStep::Keep, Some("n1"))],
        refusals: vec![],
    };
    DeployPlan {
        services: vec![changed, same],
    }
}

#[tokio::test]
async fn plan() {
    let plan = foretold();
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    writeln!(file, "services: {{web: {{image: 'nginx:2'}}}}").unwrap();
    let path = file.path().to_str().unwrap();
    let ran = answered(&plan, &["plan", path]).await;
    assert_eq!(
        ran.out,
        "\
web: would change
- image: \"nginx:1\"
+ image: \"nginx:2\"
- replicas: 1
+ replicas: 3
NAME   STEP     NODE  FROM
web.0  update   n1    -
web.1  start    n2    -
web.2  no node  -     -
NAME   GOES WHERE THE DATA IS OF  NODE  WHAT DECIDES
web.0  default/data               n1    its copy counts, those on n3 do not
web.1  default/new                n2    nobody has it yet, and it would be begun there
NODE  TAKES NO MORE BECAUSE IT  WHAT WOULD HELP
n1    is cordoned               uncordon it

db: stays as it is
0 services to create, 1 to change, 1 unchanged; replicas: 1 to start, 1 to update, 0 to move, 0 to stop; 1 would find no node
"
    );
    let answer = Answer::json(&plan);
    let daemon = fake(move |_| answer.clone());
    let ran = dunlin(&daemon, &["plan", path, "--json"]).await;
    assert_eq!(serde_json::from_str::<DeployPlan>(&ran.out).unwrap(), plan);
    let lines: Vec<String> = daemon.asked().into_iter().map(|a| a.line).collect();
    assert_eq!(lines, ["POST /v1/plan"]);
}
