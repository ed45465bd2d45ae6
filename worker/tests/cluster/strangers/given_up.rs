//! Calls that their callers give up.

use std::time::Duration;

use fittingroom_common::proto as pb;
use fittingroom_common::proto::operator_service_client::OperatorServiceClient;
use tokio::time::timeout;

use super::{GRID, MOST_GROWTH, channel, registered, resident};
use crate::access::Site;

/// How many calls are given up, so many at a time.
const GIVEN_UP: usize = 6_000;
const AT_A_TIME: usize = 100;

/// Long polls and streams are given up routinely: that costs nobody the connection, nor anybody memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gives_up_thousands_of_calls_keeps_the_connection() {
    let mut site = Site::new();
    let (operator, worker) = (site.token("operator", "me"), site.token("worker", "impatient"));
    site.serve();
    site.launch(&operator, "watched", GRID);
    site.json(&operator, &["pause", "watched"]);
    let poll = |slot| pb::LeaseRequest { worker_id: vec![4; 16], slot, wait_ms: 60_000 };
    let watch = || pb::WatchLeaderboardRequest { name: "watched".to_owned(), top: 3 };
    let client = registered(&site.url, &worker, 4).await;
    let operators = OperatorServiceClient::new(channel(&site.url, Some(&operator)));

    // Of each connection, one call goes on all the while.
    let mut witness = client.clone();
    let polled = tokio::spawn(async move { witness.lease(poll(3)).await });
    let mut watched = operators.clone().watch_leaderboard(watch()).await.expect("allowed").into_inner();
    watched.message().await.expect("goes on").expect("a first view");
    let before = resident(site.process());

    for round in 0..GIVEN_UP / AT_A_TIME {
        let polls = (0..AT_A_TIME).map(|slot| {
            let mut client = client.clone();
            async move { client.lease(poll(slot as u32 % 3)).await.map(|_| ()) }
        });
        // These are answered at once, and the answers meet nobody. The caller's own library ends a
        // connection where that happens more than a thousand times.
        let watches = if round % 12 == 0 { AT_A_TIME } else { 0 };
        let watches = (0..watches).map(|_| {
            let mut operators = operators.clone();
            async move { operators.watch_leaderboard(watch()).await.map(|_| ()) }
        });
        // Some before they are sent, some while they wait, some answered meanwhile.
        let patience = Duration::from_millis(round as u64 % 4);
        let _ = timeout(patience, futures_util::future::join_all(polls)).await;
        let _ = timeout(patience, futures_util::future::join_all(watches)).await;
        // Who gives up more than a coordinator has begun to look at is cut off: see `MOST_GIVEN_UP`.
        let alive = pb::HeartbeatRequest { worker_id: vec![4; 16], ..Default::default() };
        client.clone().heartbeat(alive).await.expect("on the same connection");
        operators.clone().list_searches(pb::ListSearchesRequest {}).await.expect("on the same connection");
    }

    let grown = resident(site.process()).saturating_sub(before);
    assert!(grown < MOST_GROWTH, "the coordinator grew by {grown} KiB");
    assert!(!polled.is_finished(), "the worker's connection was cut: {:?}", polled.await);
    site.json(&operator, &["resume", "watched"]);
    let leased = polled.await.expect("no panic").expect("answered on the same connection");
    assert!(leased.into_inner().assignment.is_some(), "there is work again");
    let view = timeout(Duration::from_secs(10), watched.message()).await.expect("in time");
    view.expect("the stream goes on").expect("another view");
    assert!(!site.log("coordinator").contains("panicked"), "{}", site.log("coordinator"));
}
