-- What the leak suite attacks. `@…@` are the marker values of leak/main; every column that holds one is masked.
CREATE EXTENSION pg_stat_statements;
CREATE EXTENSION dblink;
CREATE EXTENSION tablefunc;
CREATE EXTENSION hstore;
CREATE EXTENSION pgcrypto;
CREATE EXTENSION pageinspect;
GRANT SELECT ON pg_statistic, pg_statistic_ext_data TO gateway;
GRANT pg_read_all_stats TO gateway;
SET ROLE gateway;
CREATE TABLE public.vault (
    id int PRIMARY KEY, owner text NOT NULL, secret text UNIQUE, pin int CHECK (pin > 0), big bigint, amount numeric,
    born date, seen timestamptz, doc jsonb, notes json, tags text[], raw bytea, token uuid, ratio float8, flag bool,
    page xml, code varchar(60), fixed char(40), words tsvector, addr inet, open text
);
INSERT INTO public.vault
    SELECT n, 'owner-' || n, '@text@' || n, @pin@, @big@, @amount@, '@date@', '@date@ 11:22:33+00',
           jsonb_build_object('k', '@text@', 'n', n), json_build_object('k', '@text@'), ARRAY['@text@', 'b'],
           convert_to('@text@', 'UTF8'), '@uuid@', @ratio@, n % 2 = 0, xmlparse(content '<a>@text@</a>'), '@text@',
           '@text@', to_tsvector('simple', '@text@ word'), '@inet@', 'open-' || n
    FROM generate_series(1, 3) AS n;
CREATE TABLE public.scratch (id int, t text, j jsonb, n numeric, a text[], b bytea);
INSERT INTO public.scratch VALUES (1, 'visible-one', '{"a": "visible-json"}', 12.5, '{visible-item}', 'visible-bytes');
CREATE TABLE public.target (id int PRIMARY KEY, t text UNIQUE CHECK (t <> 'forbidden'), n int);
INSERT INTO public.target VALUES (1, 'visible-target', 5);
CREATE TABLE public.narrow (n smallint, s varchar(3), d date);
CREATE DOMAIN public.short AS text CHECK (length(VALUE) < 5);
CREATE VIEW public.vault_v AS SELECT id, owner, secret AS s, pin AS p FROM public.vault;
CREATE VIEW public.vault_vv AS SELECT v.id AS key, v.owner AS who, upper(v.s) AS loud FROM public.vault_v v;
CREATE VIEW public.vault_rows AS SELECT v AS whole, v.id FROM public.vault v;
CREATE VIEW public.vault_union AS SELECT owner AS x FROM public.vault UNION ALL SELECT secret FROM public.vault;
CREATE VIEW public.vault_picked AS SELECT id FROM public.vault WHERE secret LIKE '%7%';
CREATE VIEW public.owners AS SELECT id, owner FROM public.vault;
CREATE MATERIALIZED VIEW public.vault_m AS SELECT id, owner, secret AS kept FROM public.vault;
CREATE MATERIALIZED VIEW public.vault_mv AS SELECT key, who, loud FROM public.vault_vv;
CREATE FUNCTION public.reveal(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT secret FROM public.vault WHERE id = $1';
CREATE FUNCTION public.reveal_pl(n int) RETURNS text LANGUAGE plpgsql STABLE AS
    'BEGIN RETURN (SELECT secret FROM public.vault WHERE id = n); END';
CREATE FUNCTION public.reveal_all() RETURNS SETOF public.vault LANGUAGE sql STABLE AS 'SELECT * FROM public.vault';
CREATE FUNCTION public.reveal_table() RETURNS TABLE (k int, v text) LANGUAGE sql STABLE AS 'SELECT id, secret FROM public.vault';
CREATE FUNCTION public.reveal_out(OUT a text, OUT b int) LANGUAGE sql STABLE AS 'SELECT secret, pin FROM public.vault LIMIT 1';
CREATE FUNCTION public.shout(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
CREATE FUNCTION public.fail(text) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''it is %'', $1; END';
CREATE FUNCTION public.tell(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''it is %'', $1; RETURN 1; END';
CREATE FUNCTION public.owner_of(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT owner FROM public.vault WHERE id = $1';
CREATE FUNCTION public.keep(text) RETURNS int LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.scratch (id, t) VALUES (99, $1); RETURN 1; END';
CREATE AGGREGATE public.glue(text) (SFUNC = textcat, STYPE = text, INITCOND = '');
CREATE OPERATOR public.@@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE FUNCTION public.reveal_op(int, text) RETURNS text LANGUAGE sql AS 'SELECT secret FROM public.vault WHERE id = $1';
CREATE OPERATOR public.### (LEFTARG = int, RIGHTARG = text, FUNCTION = public.reveal_op);
CREATE FUNCTION public.to_secret(int) RETURNS xml LANGUAGE sql AS 'SELECT page FROM public.vault WHERE id = $1';
CREATE TABLE public.derived (
    id int, secret text, loud text GENERATED ALWAYS AS (upper(secret)) STORED, plain text GENERATED ALWAYS AS ('p' || id) STORED
);
INSERT INTO public.derived (id, secret) VALUES (1, '@text@');
CREATE TABLE public.parent_m (id int, secret text, open text);
CREATE TABLE public.child_of_masked () INHERITS (public.parent_m);
INSERT INTO public.child_of_masked VALUES (1, '@text@', 'open-child');
CREATE TABLE public.parent_u (id int, secret text, open text);
CREATE TABLE public.child_masked (extra text) INHERITS (public.parent_u);
INSERT INTO public.child_masked VALUES (1, '@text@', 'open-kid', 'extra');
CREATE TABLE public.parts (id int, secret text, open text) PARTITION BY RANGE (id);
CREATE TABLE public.parts_low PARTITION OF public.parts FOR VALUES FROM (0) TO (10);
CREATE TABLE public.parts_high PARTITION OF public.parts FOR VALUES FROM (10) TO (20);
INSERT INTO public.parts VALUES (1, '@text@', 'open-low'), (11, 'visible-high', 'open-high');
CREATE TABLE public."Odd Table" (id int, "Secret Col" text, "sélect" text);
INSERT INTO public."Odd Table" VALUES (1, '@text@', 'visible-odd');
CREATE TABLE public.wallet (id int, card text);
INSERT INTO public.wallet VALUES (1, '@text@9981');
CREATE SEQUENCE public.scratch_seq;
CREATE TYPE public.pair AS (a text, b int);
CREATE TABLE public.boxed (id int, p public.pair);
INSERT INTO public.boxed VALUES (1, ROW('@text@', 1)::public.pair);
CREATE VIEW public.vault_fn AS SELECT id, public.reveal(id) AS r FROM public.scratch;
CREATE VIEW public.parts_v AS SELECT * FROM public.parts;
CREATE FUNCTION public.guess(text) RETURNS bigint LANGUAGE sql STABLE AS
    'SELECT count(*) FROM public.vault WHERE secret LIKE $1';
CREATE FUNCTION public.as_pair(int) RETURNS public.pair LANGUAGE sql STABLE AS
    'SELECT ROW(secret, 1)::public.pair FROM public.vault WHERE id = $1';
CREATE CAST (int AS public.pair) WITH FUNCTION public.as_pair(int);
CREATE STATISTICS public.vault_stats (mcv) ON owner, secret FROM public.vault;
ANALYZE public.vault;
SELECT public.reveal(1);
SELECT 'spoken @text@ aloud' AS said;
