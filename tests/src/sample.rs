//! The sample data: a shop with customers, orders and things nobody should see.

use crate::postgres::Postgres;

/// Roles and the database. `gateway` owns everything in it: what it may not do is for the gateway
/// to say, and a statement that slips through does its damage where a test sees it.
///
/// The server logs statements, and anyone may read its log: not this one, with the password.
#[must_use]
pub fn roles(password: &str) -> String {
    format!(
        "SET log_statement = 'none';\nCREATE ROLE {role} LOGIN PASSWORD '{password}';\nCREATE DATABASE {database} OWNER {role};\n",
        role = Postgres::ROLE,
        database = Postgres::DATABASE,
    )
}

/// How many customers there are.
pub const CUSTOMERS: usize = 200;
/// How many orders there are.
pub const ORDERS: usize = 1000;

/// What a secret's value begins with: no job may ever see it.
pub const SECRET: &str = "sekret-value";

pub const DATA: &str = r"
SET ROLE gateway;
CREATE TABLE public.customers (
    id int PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    ssn text NOT NULL,
    card text NOT NULL
);
INSERT INTO public.customers
    SELECT n, 'Customer ' || n, 'customer' || n || '@mail.example',
           lpad((100 + n)::text, 3, '0') || '-' || lpad((10 + n % 90)::text, 2, '0') || '-' || lpad((1000 + n)::text, 4, '0'),
           '4111 1111 1111 1111'
    FROM generate_series(1, 200) AS n;
CREATE TABLE public.orders (
    id int PRIMARY KEY,
    customer_id int NOT NULL REFERENCES public.customers,
    amount numeric(10, 2) NOT NULL,
    note text
);
INSERT INTO public.orders
    SELECT n, 1 + n % 200, (n * 7 % 1000) + 0.5, CASE WHEN n % 10 = 0 THEN 'reach me at customer' || n || '@mail.example' END
    FROM generate_series(1, 1000) AS n;
CREATE TABLE public.secrets (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO public.secrets SELECT 'key-' || n, 'sekret-value-' || n FROM generate_series(1, 10) AS n;
CREATE TABLE public.imports (id int, payload text);
CREATE VIEW public.contacts AS SELECT id, email AS contact FROM public.customers;
";

/// The policy that tests start from.
pub const POLICY: &str = r#"version: 1
subjects:
  - name: payments-agent
    issuer: https://token.example
    claims: { repository: acme/payments }
  - name: readonly-agent
    issuer: https://token.example
    claims: { repository: acme/readonly }
resources:
  - name: orders
    kind: postgres
    hosts: [198.51.100.10, "2001:db8:51::10"]
    ports: [5432]
    databases: [orders]
    login: { user: gateway, password: { file: @DIR@/secrets/orders } }
    tls: { mode: verify-full, server_name: db.internal, ca: @DIR@/db-ca.pem }
    search_path: [public]
groups:
  - { name: agents, members: [payments-agent, readonly-agent] }
rules:
  - { id: connect, effect: allow, subjects: [agents], resources: [orders], connect: true }
  - id: session
    effect: allow
    subjects: [agents]
    resources: [orders]
    statements: { classes: [transaction, session] }
    record: statements
  - id: read
    effect: allow
    subjects: [agents]
    resources: [orders]
    statements:
      classes: [read]
      relations: [public.customers, public.orders, public.contacts, public.imports, "public.pgbench_*"]
      functions: [pg_catalog.pg_sleep, pg_catalog.pg_advisory_unlock_all, pg_catalog.set_config]
    record: statements
  - id: write
    effect: allow
    subjects: [payments-agent]
    resources: [orders]
    statements: { classes: [write], relations: [public.imports, "public.pgbench_*"] }
    record: statements
  - id: delete-order
    effect: approve
    subjects: [payments-agent]
    resources: [orders]
    statements: { kinds: [delete], relations: [public.orders] }
    approval: { quorum: 1, approvers: [root], expires_after: @EXPIRES@ }
    record: statements
  - id: no-secrets
    effect: deny
    subjects: [agents]
    resources: [orders]
    statements: { relations: [public.secrets] }
    reason: nobody reads the secrets
  - id: no-ddl
    effect: deny
    subjects: [agents]
    resources: [orders]
    statements: { classes: [ddl, privilege, code] }
    reason: the schema is changed by migrations, not by jobs
masks:
  - { id: pii, resources: [orders], columns: [public.customers.email, public.customers.ssn], transform: redact }
  - { id: found, resources: [orders], detectors: [email, card], transform: redact }
"#;
