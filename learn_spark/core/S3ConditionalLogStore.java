package learnspark;

import io.delta.storage.HadoopFileSystemLogStore;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Collections;
import java.util.Iterator;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.S3AFileSystem;
import software.amazon.awssdk.core.exception.SdkException;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.model.HeadObjectRequest;
import software.amazon.awssdk.services.s3.model.HeadObjectResponse;
import software.amazon.awssdk.services.s3.model.PutObjectRequest;
import software.amazon.awssdk.services.s3.model.S3Exception;

/**
 * Writes a commit of a Delta table to S3 only where no other writer has written that version.
 *
 * Delta's own store for s3a looks whether the version exists and then writes it unconditionally, so that of two writers
 * one loses its commit without an error. Here the object store decides (If-None-Match). Every commit has a random id in
 * its metadata: where the answer of a successful request was lost and the request is sent again, the refusal of the
 * second one is recognised as the success of the first.
 *
 * A process with leases (learn_spark/core/tables/leases.py) states until when it has them; later commits are refused.
 */
public class S3ConditionalLogStore extends HadoopFileSystemLogStore {
    private static final String ID = "learn-spark-commit";
    private static final int TRIES = 5;
    private static final Map DEADLINES = new ConcurrentHashMap();

    public S3ConditionalLogStore(Configuration conf) {
        super(conf);
    }

    /** The leases of a holder, of the workspace at the URL, end in so many milliseconds. */
    public static void renewed(String holder, String url, long milliseconds) {
        DEADLINES.put(holder, new Object[] {url, Long.valueOf(System.nanoTime() + milliseconds * 1000000L)});
    }

    /** The holder has no leases any more, and needs none for later commits. */
    public static void ended(String holder) {
        DEADLINES.remove(holder);
    }

    public Boolean isPartialWriteVisible(Path path, Configuration conf) {
        return Boolean.FALSE;
    }

    public void write(Path path, Iterator actions, Boolean overwrite, Configuration conf) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        while (actions.hasNext()) {
            bytes.write(((String) actions.next()).getBytes(StandardCharsets.UTF_8));
            bytes.write('\n');
        }
        S3AFileSystem fileSystem = (S3AFileSystem) path.getFileSystem(conf);
        S3Client client = fileSystem.getS3AInternals().getAmazonS3Client("commit of a Delta table");
        String bucket = fileSystem.getBucket();
        String key = path.toUri().getPath().substring(1);
        String id = UUID.randomUUID().toString();
        PutObjectRequest.Builder request = PutObjectRequest.builder();
        request.bucket(bucket);
        request.key(key);
        request.metadata(Collections.singletonMap(ID, id));
        if (!overwrite.booleanValue()) {
            request.ifNoneMatch("*");
        }
        for (int attempt = 1; ; attempt++) {
            requireLease(path);
            try {
                client.putObject((PutObjectRequest) request.build(), RequestBody.fromBytes(bytes.toByteArray()));
                return;
            } catch (S3Exception error) {
                if (!overwrite.booleanValue() && error.statusCode() == 412) {
                    if (id.equals(idOf(client, bucket, key))) {
                        return;
                    }
                    throw new FileAlreadyExistsException(path.toString());
                }
                // 409: another conditional request was at work, and neither may have won.
                if (error.statusCode() != 409 || attempt == TRIES) {
                    throw new IOException("commit to " + path, error);
                }
            } catch (SdkException error) {
                // No answer: the request may have succeeded.
                if (id.equals(idOf(client, bucket, key))) {
                    return;
                }
                if (attempt == TRIES) {
                    throw new IOException("commit to " + path, error);
                }
            }
        }
    }

    private static String idOf(S3Client client, String bucket, String key) throws IOException {
        HeadObjectRequest.Builder request = HeadObjectRequest.builder();
        request.bucket(bucket);
        request.key(key);
        try {
            HeadObjectResponse response = client.headObject((HeadObjectRequest) request.build());
            return (String) response.metadata().get(ID);
        } catch (S3Exception error) {
            if (error.statusCode() == 404) {
                return null;
            }
            throw new IOException("commit to " + key, error);
        }
    }

    private static void requireLease(Path path) throws IOException {
        Iterator leases = DEADLINES.values().iterator();
        while (leases.hasNext()) {
            Object[] lease = (Object[]) leases.next();
            if (path.toString().startsWith(lease[0] + "/") && System.nanoTime() - ((Long) lease[1]).longValue() > 0) {
                throw new IOException(
                        "the leases of " + lease[0] + " were not renewed in time; nothing was committed to " + path);
            }
        }
    }
}
