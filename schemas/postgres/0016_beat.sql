-- `check` tells from the connector's beat whether it is alive, with the rights of the worker.
grant select on public.dbz_heartbeat to crm_worker;
