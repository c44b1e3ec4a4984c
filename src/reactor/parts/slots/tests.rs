//! Tests of the slots.

use super::*;

fn allocate(slots: &mut Slots<()>, owner: &Rc<()>) -> u32 {
    slots.allocate(owner, SiteId::default()).1
}

fn free(slots: &mut Slots<()>, slot: u32) -> bool {
    let chunk = slots.chunk(slot).clone();
    slots.free(&chunk, slot)
}

#[test]
fn a_record_is_32_bytes() {
    assert_eq!(size_of::<Node>(), 32);
}

#[test]
fn a_reused_slot_rejects_its_old_token() {
    let (mut slots, owner) = (Slots::new(), Rc::new(()));
    let slot = allocate(&mut slots, &owner);
    let token = slots.chunk(slot).token(slot);
    assert_eq!(slots.resolve(token), Some(slot));
    free(&mut slots, slot);
    assert_eq!(slots.resolve(token), None);
    assert_eq!(allocate(&mut slots, &owner), slot);
    assert_eq!(slots.resolve(token), None);
    assert_eq!(slots.resolve(u64::from(NONE)), None);
}

#[test]
fn a_slot_without_generations_left_is_retired() {
    let (mut slots, owner) = (Slots::new(), Rc::new(()));
    let slot = allocate(&mut slots, &owner);
    slots.node(slot).generation.set(u32::MAX - 1);
    free(&mut slots, slot);
    assert!((0..3 * CHUNK).all(|_| allocate(&mut slots, &owner) != slot));
}

#[test]
fn idle_chunks_go_and_their_numbers_come_back() {
    let (mut slots, owner) = (Slots::new(), Rc::new(()));
    let taken: Vec<u32> = (0..100 * CHUNK).map(|_| allocate(&mut slots, &owner)).collect();
    let tokens: Vec<u64> = taken.iter().map(|&slot| slots.chunk(slot).token(slot)).collect();
    // One slot of the last but one chunk stays.
    let stays = 98 * CHUNK + 5;
    for (n, &slot) in taken.iter().enumerate() {
        if n != stays {
            free(&mut slots, slot);
        }
    }
    assert_eq!(slots.usage(), (100, 1));
    assert!(!slots.shrink(0, 10), "a piece");
    assert!(slots.shrink(0, 200));
    assert_eq!((slots.usage(), slots.chunks.len()), ((KEPT, 1), 99));
    assert_eq!(slots.iter().collect::<Vec<_>>(), [taken[stays]]);
    let again: Vec<u32> = (1..100 * CHUNK).map(|_| allocate(&mut slots, &owner)).collect();
    assert_eq!((slots.live(), slots.usage()), (100 * CHUNK, (100, 100)));
    let alive = |&&token: &&u64| slots.resolve(token).is_some();
    assert_eq!(tokens.iter().filter(alive).collect::<Vec<_>>(), [&tokens[stays]]);
    again.into_iter().for_each(|slot| assert!(!free(&mut slots, slot) || slots.idle_len > 0));
}

#[test]
fn chunks_that_are_used_meanwhile_stay() {
    let (mut slots, owner) = (Slots::new(), Rc::new(()));
    let burst = |slots: &mut Slots<()>, n: usize| {
        let taken: Vec<u32> = (0..n * CHUNK).map(|_| allocate(slots, &owner)).collect();
        for slot in taken {
            free(slots, slot);
        }
    };
    burst(&mut slots, 50);
    slots.measure();
    burst(&mut slots, 7);
    assert_eq!((slots.usage(), slots.most_used()), ((50, 0), 7));
    slots.measure();
    assert_eq!(slots.most_used(), 0);
}

#[test]
fn slots_are_reused_before_new_ones_are_made() {
    let (mut slots, owner) = (Slots::new(), Rc::new(()));
    for _ in 0..10 {
        let taken: Vec<u32> = (0..300).map(|_| allocate(&mut slots, &owner)).collect();
        assert_eq!(slots.live(), 300);
        for slot in taken {
            free(&mut slots, slot);
        }
    }
    assert_eq!(slots.chunks.len(), 3);
}

#[test]
fn emptied_chunks_give_their_slots_in_order() {
    let (mut slots, owner) = (Slots::new(), Rc::new(()));
    for _ in 0..3 {
        let taken: Vec<u32> = (0..2 * CHUNK).map(|_| allocate(&mut slots, &owner)).collect();
        assert!(taken.is_sorted(), "{taken:?}");
        taken.iter().for_each(|&slot| _ = free(&mut slots, slot));
    }
    // A slot that comes and goes is the same one.
    let slot = allocate(&mut slots, &owner);
    free(&mut slots, slot);
    assert_eq!(allocate(&mut slots, &owner), slot);
}
