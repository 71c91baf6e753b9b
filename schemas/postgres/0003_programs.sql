-- Settings, the clock, and the programs of the merchants with their versions.

create table crm_events.settings (
    name  text primary key,
    value text not null
);

-- The only clock of the functions. 'clock_offset' is for tests of what is due in months; only the owner can write it.
create function crm_events.clock() returns timestamptz
language sql stable as $$
    select now() + coalesce((select value::interval from crm_events.settings where name = 'clock_offset'), interval '0')
$$;

-- An instant as events carry it.
create function crm_events.rfc3339(at timestamptz) returns text
language sql immutable as $$
    select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

create function crm_events.ms(at timestamptz) returns bigint
language sql immutable as $$
    select floor(extract(epoch from at) * 1000)::bigint
$$;

-- A component of an effect key. As `dedupe::escape` does it.
create function crm_events.escape(component text) returns text
language sql immutable as $$
    select replace(replace(component, '%', '%25'), ':', '%3A')
$$;

create table crm_events.programs (
    -- '*' is the program of every merchant that is not listed.
    merchant_id text primary key check (merchant_id <> ''),
    time_zone   text not null check (time_zone <> '')
);

create table crm_events.program_versions (
    merchant_id    text not null references crm_events.programs,
    rev            integer not null check (rev between 1 and 2000000000),
    -- As in the program file: a date, which begins in the program's zone, or an RFC 3339 time.
    effective_from text not null check (effective_from ~ '^\d{4}-\d{2}-\d{2}([Tt ].+)?$'),
    -- currency, tiers, missions, refund_policy: a version of schemas/program.schema.json without its first two fields.
    rules          jsonb not null check (jsonb_typeof(rules) = 'object' and not rules ? 'rev' and not rules ? 'effective_from'),
    primary key (merchant_id, rev)
);

create function crm_events.begins(effective_from text, time_zone text) returns timestamptz
language sql stable as $$
    select case when length(effective_from) = 10 then effective_from::date::timestamp at time zone time_zone
                else effective_from::timestamptz end
$$;

-- What a purchase earned under a version must stay explicable, and at an equal revision targets are taken for equal.
create function crm_events.keep_version_in_force() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    zone text;
begin
    if tg_op = 'UPDATE' and new is not distinct from old then
        return new;
    end if;
    select time_zone into zone from crm_events.programs where merchant_id = old.merchant_id;
    if crm_events.begins(old.effective_from, zone) <= crm_events.clock() then
        raise exception 'version % of merchant % is in force since %', old.rev, old.merchant_id, old.effective_from
            using hint = 'add a version with the next rev and a later effective_from', errcode = 'restrict_violation';
    end if;
    if tg_op = 'DELETE' then
        return old;
    end if;
    return new;
end
$$;

create trigger keep_version_in_force before update or delete on crm_events.program_versions
    for each row execute function crm_events.keep_version_in_force();

-- Revisions of '*' are kept with the effects of every merchant that lives under it. One that gets a program of its own with
-- a lower revision would go on under '*': older rules never replace newer ones.
create function crm_events.begin_above_default() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    default_rev constant integer := (select max(rev) from crm_events.program_versions where merchant_id = '*');
begin
    if new.merchant_id <> '*' and new.rev <= default_rev
       and not exists (select from crm_events.program_versions own where own.merchant_id = new.merchant_id and own.rev < new.rev)
       and exists (select from crm_events.effects effect
                   where effect.merchant_id = new.merchant_id and effect.program_rev between new.rev and default_rev) then
        raise exception 'merchant % was decided by the default program, whose revision is %', new.merchant_id, default_rev
            using hint = format('begin with rev %s; what the merchant had all along in a program file goes in before ''*''',
                                default_rev + 1),
                errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger begin_above_default before insert or update of merchant_id, rev on crm_events.program_versions
    for each row execute function crm_events.begin_above_default();

-- The zone is part of every version, and one that nobody knows would stop the merchant.
create function crm_events.keep_zone_in_force() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
begin
    perform now() at time zone new.time_zone;
    if tg_op = 'UPDATE' and (new.time_zone, new.merchant_id) is distinct from (old.time_zone, old.merchant_id) and exists (
        select from crm_events.program_versions version
        where version.merchant_id = old.merchant_id
          and crm_events.begins(version.effective_from, old.time_zone) <= crm_events.clock()
    ) then
        raise exception 'merchant % has a version in force, whose times are in %', old.merchant_id, old.time_zone
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger keep_zone_in_force before insert or update on crm_events.programs
    for each row execute function crm_events.keep_zone_in_force();

-- One document a merchant: an element of `programs` of schemas/program.schema.json.
create function crm_events.programs_documents() returns table (merchant_id text, document jsonb)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select program.merchant_id,
           jsonb_build_object('merchant_id', program.merchant_id, 'time_zone', program.time_zone, 'versions',
               jsonb_agg(jsonb_build_object('rev', version.rev, 'effective_from', version.effective_from) || version.rules
                         order by version.rev))
    from crm_events.programs program
    join crm_events.program_versions version using (merchant_id)
    group by program.merchant_id, program.time_zone
    order by program.merchant_id
$$;
