-- Who comes in, as in production: a login each, without a right of its own (schemas/postgres/README.md, "Roles").
-- Run once, by the image, before anything is migrated; migrate finds the groups and grants to them.
create role crm_connector nologin;
create role crm_worker nologin;
create role crm_workflows nologin;
create role cdc login replication password 'crm' in role crm_connector;
create role worker login password 'crm' in role crm_worker;
create role workflows login password 'crm' in role crm_workflows;
