// Ids of functions and names of steps, frozen for ever: a run that sleeps for a month remembers its steps by name, and a
// step whose name is new to it runs again. Add, never rename. `step_names_are_frozen` holds a second copy.

/** The app's id; every function's id at Inngest begins with it. */
export const APP = "crm-event-processors";

export const NAMES = {
  award: { id: "award", apply: "apply", due: "due", settle: "settle", skew: "skew" },
  tierUpgrade: {
    id: "tier-upgrade",
    plan: "plan",
    due: "due",
    upgrade: "upgrade",
    skew: "skew",
    announce: "announce",
    announced: "announced",
  },
  grant: { id: "grant", settle: "settle" },
  code: { id: "code", settle: "settle" },
  sweeper: { id: "sweeper", find: "find", settle: "settle", announce: "announce", announced: "announced" },
} as const;

export const EVENTS = {
  awardScheduled: "loyalty/award.scheduled",
  awardCancelled: "loyalty/award.cancelled",
  tierUpgradeScheduled: "loyalty/tier_upgrade.scheduled",
  rewardGranted: "loyalty/reward.granted",
  rewardRevoked: "loyalty/reward.revoked",
  codeRedeemed: "loyalty/code.redeemed",
} as const;
