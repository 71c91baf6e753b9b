-- Functions that behave as a test asks: the client is tested here, not the functions of schemas/postgres.
create schema crm_events;

-- `state:XXXXX` raises that SQLSTATE, `sleep` sleeps, `timeout:X` wants that one, `quote` raises with a value in its words.
create function crm_events.announced(ids text[]) returns void language plpgsql as $$
begin
    if ids[1] like 'state:%' then
        raise exception 'as asked' using errcode = substr(ids[1], 7), detail = 'sentinel', hint = 'sentinel';
    elsif ids[1] = 'sleep' then
        perform pg_sleep(120);
    elsif ids[1] like 'timeout:%' and current_setting('statement_timeout') <> substr(ids[1], 9) then
        raise exception '%', current_setting('statement_timeout');
    elsif ids[1] = 'quote' then
        perform 'sentinel'::bigint;
    end if;
end
$$;

create table cut_off (stored timestamptz);

create function crm_events.effective_from(given timestamptz) returns timestamptz language plpgsql as $$
begin
    insert into public.cut_off select given where given is not null and not exists (select from public.cut_off);
    return (select stored from public.cut_off);
end
$$;

create table documents (merchant_id text primary key, document jsonb not null);

create function crm_events.programs_documents() returns table (merchant_id text, document jsonb) language sql as $$
    select * from public.documents
$$;
