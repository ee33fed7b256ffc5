CREATE TABLE driver_sqlx_migrated (id int PRIMARY KEY, what text NOT NULL);
INSERT INTO driver_sqlx_migrated VALUES (1, 'a'), (2, 'b');
