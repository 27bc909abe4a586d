//! `dunlin namespace`.

use dunlin_state::model::{Excess, Quota, QuotaOf, Usage};

use super::*;

fn shop() -> NamespaceList {
    let usage = Usage {
        cpu_millis: 1_500,
        memory: 2 << 30,
        replicas: 5,
    };
    let quota = Quota {
        cpu_millis: Some(4_000),
        memory: None,
        replicas: Some(3),
    };
    NamespaceList {
        namespaces: vec![NamespaceSummary {
            name: "shop".to_owned(),
            services: 2,
            usage,
            quota,
            over: vec![Excess {
                of: QuotaOf::Replicas,
                wanted: 5,
                allowed: 3,
            }],
        }],
    }
}

#[tokio::test]
async fn namespaces_are_listed_with_what_they_use_of_their_quotas() {
    let ran = answered(&shop(), &["namespace", "ls"]).await;
    assert_eq!(
        ran.out,
        "\
NAME  SERVICES  REPLICAS  CPU    MEMORY  STATE
shop  2         5/3       1.5/4  2GiB    over its quota: 5 of 3 replicas
"
    );
}

#[tokio::test]
async fn quotas_are_set_and_what_exceeds_them_is_told() {
    let daemon = fake(|line| match line.starts_with("PUT") {
        true => Answer::json(&ChangeResponse { changed: true }),
        false => Answer::json(&shop()),
    });
    let words = [
        "namespace",
        "set-quota",
        "shop",
        "--cpus",
        "4",
        "--replicas",
        "3",
    ];
    let ran = dunlin(&daemon, &words).await;
    assert_eq!(ran.out, "quota of shop: changed\n");
    assert!(
        ran.err
            .contains("exceeded now: 5 of 3 replicas. Nothing is stopped"),
        "{}",
        ran.err
    );
    let asked = daemon.asked();
    assert_eq!(asked[0].line, "PUT /v1/namespaces/shop/quota");
    let sent: Quota = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(sent, shop().namespaces[0].quota);
    let ran = dunlin(&daemon, &["namespace", "set-quota", "shop"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("--none"), "{}", ran.err);
}
