-- A merchant with one rule, a point for each unit spent, and one purchase: the first award (README.md).
insert into crm_events.programs (merchant_id, time_zone) values ('shop', 'UTC');
insert into crm_events.program_versions (merchant_id, rev, effective_from, rules) values ('shop', 1, '1970-01-01', '{
    "currency": {"rate": "1", "rounding": "floor", "minimum": "0", "activation": {"kind": "immediate"}},
    "refund_policy": "within_balance"
}');
insert into public.purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at, completed_at)
values ('first', 'ann', 'shop', 100, 'completed', true, now(), now());
