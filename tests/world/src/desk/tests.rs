use super::*;

#[test]
fn editors_come_and_go_and_one_agent_serves_them() {
    for seed in 0..400 {
        let steps = Desk::steps_of(seed);
        let (failure, _) = Desk::play(seed, &steps, false);
        assert_eq!(failure, None, "seed {seed}: {steps:?}");
    }
}

#[test]
fn two_agents_that_serve_at_once_are_noticed() {
    let failures = (0..100).filter_map(|seed| {
        let desk = Desk { is_lawless: true, ..Desk::new(seed, false) };
        desk.run_all(&Desk::steps_of(seed)).0
    });
    let words: Vec<_> = failures.collect();
    assert!(words.iter().any(|failure| failure.contains("two agents serve at once")), "{words:?}");
}

#[test]
fn same_seed_same_desk() {
    let hash = |seed| Desk::play(seed, &Desk::steps_of(seed), false).1.hash();
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}
