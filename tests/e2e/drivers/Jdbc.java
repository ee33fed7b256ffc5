// pgjdbc: what a client sees, as lines. Run directly and through the gateway; both have to print the same.
import java.io.*;
import java.sql.*;
import java.util.*;
import org.postgresql.*;
import org.postgresql.copy.*;
import org.postgresql.largeobject.*;

public class Jdbc {
    static void failing(Connection db, String text) {
        try (Statement statement = db.createStatement()) {
            statement.execute(text);
            System.out.println("no error: " + text);
        } catch (SQLException e) {
            System.out.println("error " + e.getSQLState() + " " + e.getMessage());
        }
    }

    public static void main(String[] words) throws Exception {
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":5432/" + System.getenv("PGDATABASE") + "?sslmode=require";
        Properties place = new Properties();
        place.setProperty("user", System.getenv("PGUSER"));
        place.setProperty("password", System.getenv("PGPASSWORD"));
        try (Connection db = DriverManager.getConnection(url, place)) {
            System.out.println("server " + db.getMetaData().getDatabaseProductVersion());
            Statement plain = db.createStatement();
            plain.execute("DROP TABLE IF EXISTS driver_jdbc");
            plain.execute("CREATE TABLE driver_jdbc (id int PRIMARY KEY, what text, many int[], at timestamptz, n numeric)");
            PreparedStatement insert = db.prepareStatement("INSERT INTO driver_jdbc VALUES (?, ?, ?, ?, ?)");
            for (int n = 0; n < 100; n++) {
                insert.setInt(1, n);
                insert.setString(2, "row ü " + n);
                insert.setArray(3, db.createArrayOf("int4", new Integer[] {n, null, n + 1}));
                insert.setTimestamp(4, new Timestamp(1767323045000L));
                insert.setBigDecimal(5, new java.math.BigDecimal("1.50"));
                insert.addBatch();
            }
            System.out.println("batch " + Arrays.stream(insert.executeBatch()).sum());
            // From the fifth run on the statement is prepared on the server, and results are binary.
            PreparedStatement select = db.prepareStatement("SELECT id, what, many, n FROM driver_jdbc WHERE id = ?");
            for (int n = 0; n < 10; n++) {
                select.setInt(1, n);
                try (ResultSet rows = select.executeQuery()) {
                    rows.next();
                    System.out.println(rows.getInt(1) + rows.getString(2) + Arrays.toString((Integer[]) rows.getArray(3).getArray()) + rows.getBigDecimal(4));
                }
            }
            failing(db, "INSERT INTO driver_jdbc (id) VALUES (1)");
            failing(db, "SELECT wrong FROM driver_jdbc");
            failing(db, "SELECT 1 / 0");
            try {
                Statement batch = db.createStatement();
                batch.addBatch("INSERT INTO driver_jdbc (id) VALUES (200)");
                batch.addBatch("INSERT INTO driver_jdbc (id) VALUES (1)");
                batch.addBatch("INSERT INTO driver_jdbc (id) VALUES (201)");
                batch.executeBatch();
            } catch (BatchUpdateException e) {
                System.out.println("batch " + e.getSQLState() + Arrays.toString(e.getUpdateCounts()));
            }
            // A portal that is fetched in parts.
            db.setAutoCommit(false);
            Statement parts = db.createStatement();
            parts.setFetchSize(7);
            int sum = 0;
            try (ResultSet rows = parts.executeQuery("SELECT id FROM driver_jdbc ORDER BY id")) {
                while (rows.next()) sum += rows.getInt(1);
            }
            System.out.println("fetched " + sum);
            Savepoint savepoint = db.setSavepoint();
            failing(db, "SELECT 1 / 0");
            db.rollback(savepoint);
            plain.execute("DELETE FROM driver_jdbc");
            db.rollback();
            LargeObjectManager objects = db.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = objects.createLO();
            LargeObject object = objects.open(oid, LargeObjectManager.READWRITE);
            object.write("large object".getBytes());
            object.seek(6);
            System.out.println("large object " + new String(object.read(6)) + object.tell() + " " + object.size());
            object.close();
            objects.delete(oid);
            db.commit();
            db.setAutoCommit(true);
            CopyManager copies = db.unwrap(PGConnection.class).getCopyAPI();
            System.out.println("copied " + copies.copyIn("COPY driver_jdbc (id, what) FROM STDIN", new StringReader("1000\ta\n1001\tb\n")));
            StringWriter out = new StringWriter();
            copies.copyOut("COPY (SELECT id, what FROM driver_jdbc WHERE id > 97 ORDER BY id) TO STDOUT (FORMAT csv)", out);
            System.out.println(out);
            plain.execute("LISTEN driver_news");
            plain.execute("NOTIFY driver_news, 'hello'");
            for (PGNotification note : db.unwrap(PGConnection.class).getNotifications(5000)) {
                System.out.println(note.getName() + note.getParameter() + (note.getPID() == db.unwrap(PGConnection.class).getBackendPID()));
            }
            plain.execute("DROP TABLE IF EXISTS never_was_there");
            System.out.println(plain.getWarnings());
            try (Statement slow = db.createStatement()) {
                slow.setQueryTimeout(1);
                slow.execute("SELECT pg_sleep(60)");
            } catch (SQLException e) {
                System.out.println("cancelled " + e.getSQLState());
            }
            try (ResultSet columns = db.getMetaData().getColumns(null, "public", "driver_jdbc", null)) {
                while (columns.next()) System.out.println(columns.getString(4) + " " + columns.getString(6));
            }
            plain.execute("DISCARD ALL");
            plain.execute("DROP TABLE driver_jdbc");
        }
    }
}
